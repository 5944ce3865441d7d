//! The program `llada`.
fn main() {}
