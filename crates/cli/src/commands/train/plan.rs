//! `llada train --dry-run`: what a run will take, from two steps that are not kept.

use llada::train::{StepMetrics, Trainer};

use crate::view::units;

/// What is known of a run before it begins, `metrics` being those of a step of it on so many ranks.
pub fn text(trainer: &Trainer, metrics: &StepMetrics, ranks: usize) -> String {
    let recipe = trainer.recipe();
    let config = &trainer.predictor().model().config;
    let (done, steps) = (trainer.step(), recipe.train.steps);
    let left = steps - done;
    let memory = trainer.memory().total();
    let each = trainer.tokens_of_step();
    let rows = [
        ("model", format!("{} parameters", units::count(config.parameters() as u64))),
        ("trained", format!("{} numbers", units::thousands(trainer.trained_parameters() as u64))),
        (
            "steps",
            match done {
                0 => units::thousands(steps),
                _ => format!("{}, of which {} are done", units::thousands(steps), done),
            },
        ),
        (
            "a step",
            format!(
                "{} of {} tokens",
                units::counted(recipe.train.batch_size as u64, "sequence"),
                units::thousands(each / recipe.train.batch_size.max(1) as u64),
            ),
        ),
        (
            "all steps",
            format!(
                "{} tokens, {:.1} passes over the data",
                units::count(each * steps),
                trainer.epochs()
            ),
        ),
        (
            "memory",
            match ranks {
                1 => format!("{} at least", units::bytes(memory as u64)),
                _ => format!("{} at least on each of {ranks} ranks", units::bytes(memory as u64)),
            },
        ),
        ("arithmetic", format!("{:.3} Tflop a step", metrics.flops / 1e12)),
        (
            "time",
            format!(
                "{} a step here, {} for those that are left",
                units::duration(metrics.seconds),
                units::duration(metrics.seconds * left as f64)
            ),
        ),
    ];
    format!("{}\n\n{}", units::table(&rows), shapes(&trainer.shapes()))
}

/// The shapes of what is trained, those of all blocks in one line.
fn shapes(all: &[(String, Vec<usize>)]) -> String {
    let mut rows: Vec<(String, &[usize], usize)> = Vec::new();
    for (name, shape) in all {
        let name = in_any_block(name);
        match rows.iter_mut().find(|(other, of, _)| (other, *of) == (&name, shape)) {
            Some((_, _, count)) => *count += 1,
            None => rows.push((name, shape, 1)),
        }
    }
    let row = |(name, shape, count): (String, &[usize], usize)| {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let times = if count > 1 { format!("x {count}") } else { String::new() };
        [name, shape.join(" x "), times]
    };
    units::columns(&rows.into_iter().map(row).collect::<Vec<_>>())
}

/// A tensor's name with `*` in the place of numbers.
fn in_any_block(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = name.split('.').map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_once() {
        let all = [("wte", vec![9, 4]), ("blocks.0.q", vec![4, 4]), ("blocks.10.q", vec![4, 4])];
        let all = all.map(|(name, shape)| (name.to_owned(), shape));
        assert_eq!(shapes(&all), "wte         9 x 4\nblocks.*.q  4 x 4  x 2");
    }
}
