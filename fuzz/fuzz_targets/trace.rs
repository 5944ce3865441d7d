//! A trace of a generation, read step by step to its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llada::diffusion::trace::Reader;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reader) = Reader::new(bytes) {
        reader.for_each(drop);
    }
});
