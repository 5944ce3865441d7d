//! Runs on several folders of shards.

use super::*;

/// A second folder of shards, of one word, and one of another tokenizer.
fn folders(bench: &Bench) -> [PathBuf; 3] {
    let text = "dog dog dog dog dog dog dog dog<|endoftext|>\n".repeat(40);
    let input = bench.path("dogs.txt");
    fs::write(&input, &text).unwrap();
    let opened = checkpoint::Checkpoint::open(&bench.path("data")).unwrap();
    let other = tokenizer::train(Kind::Character { min_count: 0 }, [Ok(text)]).unwrap();
    for (name, tokenizer) in [("dogs", &opened.tokenizer().unwrap()), ("other", &other)] {
        let options = PrepareOptions { validation: 0.1, ..PrepareOptions::default() };
        prepare(std::slice::from_ref(&input), &bench.path(name), tokenizer, &options, &mut |_| {})
            .unwrap();
    }
    ["data", "dogs", "other"].map(|name| bench.path(name))
}

#[test]
fn a_mixture_is_resumed_to_the_last_bit_and_its_weights_decide_what_is_learnt() {
    let bench = Bench::new();
    let [data, dogs, other] = folders(&bench);
    let path = format!("data.path={}, {}", data.display(), dogs.display());
    let mixed = |weights: &str| {
        let weights = format!("data.weights={weights}");
        bench.recipe(&[&path, &weights, "eval.sequences=64"])
    };
    let mut trainer = bench.trainer("whole", mixed("[1, 3]"), Start::Fresh, 1).unwrap();
    run(&mut trainer, u64::MAX).0.unwrap();
    let even = trainer.measure().unwrap();
    let mut trainer = bench.trainer("halves", mixed("[1, 3]"), Start::Fresh, 2).unwrap();
    assert_eq!(run(&mut trainer, 5).0.unwrap(), Outcome::Stopped);
    drop(trainer);
    let refused = bench.trainer("halves", mixed("[3, 1]"), Start::Resume, 2).unwrap_err();
    assert!(refused.to_string().contains("data.weights"), "{refused}");
    let mut trainer = bench.trainer("halves", mixed("[1, 3]"), Start::Resume, 2).unwrap();
    run(&mut trainer, u64::MAX).0.unwrap();
    assert_eq!(bench.weights("whole", 12), bench.weights("halves", 12));
    drop(trainer);
    // The other folder first is another run.
    let swapped = format!("data.path={}, {}", dogs.display(), data.display());
    let recipe = bench.recipe(&[&swapped, "data.weights=[1, 3]", "eval.sequences=64"]);
    assert!(bench.trainer("halves", recipe, Start::Resume, 1).is_err());

    // Both folders' held-out windows are measured.
    assert!(even.nll.is_finite());
    for (paths, weights, expected) in [
        (vec![&data, &other], "", "another tokenizer"),
        (vec![&data, &dogs], "data.weights=[1]", "data.weights"),
        (vec![&data, &dogs], "data.weights=[1, 0]", "data.weights"),
        (vec![&data], "data.weights=[1]", "data.weights"),
        (vec![&data, &dogs], "data.unique_tokens=100", "data.unique_tokens"),
    ] {
        let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let path = format!("data.path={}", shown.join(", "));
        let overrides = [path.as_str(), weights];
        let overrides = &overrides[..if weights.is_empty() { 1 } else { 2 }];
        let text =
            "[model]\nd_model = 16\nn_layers = 2\nn_heads = 2\n[data]\nsequence_length = 24\n";
        let found = Recipe::parse(text, overrides)
            .and_then(|recipe| bench.trainer("refused", recipe, Start::Fresh, 1));
        let error = found.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
