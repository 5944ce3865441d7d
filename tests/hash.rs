//! Numbers for predictors that are no models: what they see decides them, and nothing else.

/// Another number for each, spread over all bits.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_add(0x632b_e59b_d9b4_e019)
}
