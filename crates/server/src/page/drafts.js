// What was typed survives a reload of the page, in this tab.

const name = (key) => `llada.draft.${key}`;

export const load = (key, fallback = null) => JSON.parse(sessionStorage.getItem(name(key))) ?? fallback;

export const save = (key, value) => sessionStorage.setItem(name(key), JSON.stringify(value));
