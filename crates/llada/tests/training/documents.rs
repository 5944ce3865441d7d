//! Runs in which each document of a row is a sequence of its own.

use super::*;

#[test]
fn a_run_of_documents_is_the_same_for_any_threads_and_micro_batches_and_is_resumed() {
    let bench = Bench::new();
    let split = ["data.split_documents=true", "data.sequence_length=200", "train.batch_size=3"];
    let recipe = |more: &[&str]| bench.recipe(&[&split[..], more].concat());
    let mut whole = bench.trainer("whole", recipe(&[]), Start::Fresh, 1).unwrap();
    let steps = run(&mut whole, u64::MAX).1;
    assert!(steps.iter().all(|step| step.loss.is_finite()));
    assert!(whole.sample_prompt().is_empty(), "nothing is before a document");

    let mut halves = bench.trainer("halves", recipe(&[]), Start::Fresh, 2).unwrap();
    assert_eq!(run(&mut halves, 5).0.unwrap(), Outcome::Stopped);
    drop(halves);
    let refused = bench.trainer("halves", bench.recipe(&split[1..]), Start::Resume, 1);
    assert!(refused.unwrap_err().to_string().contains("data.split_documents"));
    let mut halves = bench.trainer("halves", recipe(&[]), Start::Resume, 2).unwrap();
    run(&mut halves, u64::MAX).0.unwrap();
    assert_eq!(bench.weights("whole", 12), bench.weights("halves", 12));

    // Divided otherwise it is the same but for the order of sums.
    let mut others =
        bench.trainer("others", recipe(&["train.micro_batch_size=1"]), Start::Fresh, 1).unwrap();
    for (a, b) in steps.iter().zip(run(&mut others, u64::MAX).1) {
        assert!((a.loss - b.loss).abs() < 1e-3 * a.loss, "{} {}", a.loss, b.loss);
        assert!(a.length < 200 && a.length == b.length && a.tokens == b.tokens);
    }
}

#[test]
fn blocks_of_documents_begin_with_them() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[
        "data.split_documents=true",
        "data.sequence_length=200",
        "block.length=7",
        "block.normalisation=masked",
    ]);
    let mut trainer = bench.trainer("blocks", recipe, Start::Fresh, 2).unwrap();
    let steps = run(&mut trainer, u64::MAX).1;
    assert!(steps.iter().all(|step| step.loss.is_finite() && step.skipped.is_none()));
    assert!(trainer.measure().unwrap().nll.is_finite());
}
