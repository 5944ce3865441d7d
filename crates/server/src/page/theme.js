// The chosen theme, before anything is drawn; without a choice the system's.
"use strict";
{
  const chosen = localStorage.getItem("llada.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const prefersDark = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () =>
      (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
    const label = () => button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
    button.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      localStorage.setItem("llada.theme", next);
      label();
    });
    prefersDark.addEventListener("change", label);
    label();
  });
}
