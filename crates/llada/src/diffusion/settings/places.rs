//! Where settings take effect that are no field of the [`Sampler`] on their own.

use crate::diffusion::{
    Edit, Sampler, SamplerError,
    blocks::AdaptiveBlocks,
    cache::{Refresh, SuffixWindow},
    variable::VariableLength,
};

/// The value that `read` finds.
pub(super) fn read<T>(sampler: &Sampler, read: impl Fn(&Sampler) -> Option<T>) -> Option<T> {
    read(sampler)
}

/// Puts a value where `write` does.
pub(super) fn write<T>(
    sampler: &mut Sampler,
    value: T,
    write: impl Fn(&mut Sampler, T) -> Result<(), SamplerError>,
) -> Result<(), SamplerError> {
    write(sampler, value)
}

/// When the cache is renewed; `None` without one.
pub(super) fn refresh(sampler: &Sampler) -> Option<Refresh> {
    let mut cache = sampler.cache;
    cache.refresh_mut().copied()
}

/// Changes when the cache is renewed. Without a cache, nothing is renewed 0 times.
pub(super) fn set_refresh(
    sampler: &mut Sampler,
    setting: &'static str,
    number: usize,
    change: impl Fn(&mut Refresh),
) -> Result<(), SamplerError> {
    match sampler.cache.refresh_mut() {
        Some(refresh) => change(refresh),
        None if number > 0 => return Err(SamplerError::NoCache { setting }),
        None => {}
    }
    Ok(())
}

/// Adaptive blocks, which end nowhere until it is known which tokens are delimiters: see
/// [`Sampler::ending_blocks`].
pub(super) fn set_adaptive_blocks(sampler: &mut Sampler, is_on: bool) -> Result<(), SamplerError> {
    sampler.adaptive_blocks = is_on.then(|| AdaptiveBlocks::new(Vec::new()));
    Ok(())
}

pub(super) fn set_variable_length(sampler: &mut Sampler, is_on: bool) -> Result<(), SamplerError> {
    sampler.variable_length = is_on.then(VariableLength::default);
    Ok(())
}

pub(super) fn set_suffix_window(sampler: &mut Sampler, masks: usize) -> Result<(), SamplerError> {
    let decay = sampler.suffix_window.is_some_and(|window| window.decay);
    sampler.suffix_window = Some(SuffixWindow { masks, decay });
    Ok(())
}

pub(super) fn set_suffix_decay(sampler: &mut Sampler, is_on: bool) -> Result<(), SamplerError> {
    match &mut sampler.suffix_window {
        Some(window) => window.decay = is_on,
        None if is_on => return Err(SamplerError::NoWindow),
        None => {}
    }
    Ok(())
}

pub(super) fn set_edit(sampler: &mut Sampler, threshold: f64) -> Result<(), SamplerError> {
    let rounds = sampler.edit.unwrap_or_default().rounds;
    sampler.edit = Some(Edit { threshold, rounds });
    Ok(())
}

pub(super) fn set_edit_rounds(sampler: &mut Sampler, rounds: usize) -> Result<(), SamplerError> {
    sampler.edit.as_mut().ok_or(SamplerError::NoEdit)?.rounds = rounds;
    Ok(())
}
