//! A recipe, with its last line as an override; what is accepted resolves to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llada::train::Recipe;

fuzz_target!(|text: &str| {
    let (recipe, assignment) = text.rsplit_once('\n').unwrap_or((text, ""));
    let none: [&str; 0] = [];
    let _ = Recipe::parse(recipe, &[assignment]);
    let _ = Recipe::parse_sft(recipe, &[assignment]);
    if let Ok(first) = Recipe::parse(recipe, &none) {
        let second = Recipe::parse(&first.to_toml(), &none).expect("a resolved recipe is a recipe");
        assert_eq!(first, second);
    }
});
