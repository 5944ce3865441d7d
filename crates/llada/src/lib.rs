//! Masked-diffusion language models of the LLaDA family.
