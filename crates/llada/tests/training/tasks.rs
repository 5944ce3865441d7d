//! What tasks measure during a run.

use std::cell::Cell;

use super::*;
use llada::{
    eval::{self, Monitor, Overrides},
    train::TaskScore,
};

const TASK: &str = r#"
name = "words"
version = 1
about = "the word that comes next"
kind = "choice"
prompt = "the "
delimiter = ""
[data]
rows = [{ right = 0 }, { right = 1 }]
[choice]
choices = ["dog", "fox"]
answer = "right"
metrics = ["acc"]
[likelihood]
mc_num = 2
"#;

fn monitor(trainer: &Trainer) -> Monitor {
    let task = eval::Task::parse(TASK, "words.toml").unwrap();
    let prepared = eval::prepare(task, Path::new("."), None, None).unwrap();
    let template = trainer.template().unwrap();
    let config = &trainer.predictor().model().config;
    let tokenizer = trainer.tokenizer().clone();
    Monitor::new(vec![prepared], Overrides::default(), tokenizer, template, config, None).unwrap()
}

/// Runs with tasks, and a stop in the middle of evaluation number `stop_in`, from 1.
fn run_measured(trainer: &mut Trainer, stop_in: u64) -> (Outcome, Vec<(u64, Vec<TaskScore>)>) {
    let stop = AtomicBool::new(false);
    let mut monitor = monitor(trainer);
    let (count, mut told) = (Cell::new(0), Vec::new());
    let mut evaluate = |predictor: &mut llada::model::MaskPredictor| {
        count.set(count.get() + 1);
        stop.store(count.get() == stop_in, Ordering::Relaxed);
        monitor.evaluate(predictor, &stop)
    };
    let mut event = |event: &Event<'_>| {
        if let Event::Tasks { step, scores } = event {
            told.push((*step, scores.to_vec()));
        }
    };
    let evaluate: Option<&mut llada::train::Evaluating<'_>> = Some(&mut evaluate);
    let mut hooks =
        Hooks { clock: &|| 1e9, stop: &stop, event: &mut event, sample: None, evaluate };
    let outcome = trainer.run(&mut hooks).unwrap();
    (outcome, told)
}

fn task_lines(bench: &Bench, run: &str) -> Vec<(u64, f64)> {
    let lines = lines(&bench.path(run).join("metrics.jsonl"));
    let tasks = lines.iter().filter(|line| line["kind"] == "task");
    tasks.map(|line| (line["step"].as_u64().unwrap(), line["value"].as_f64().unwrap())).collect()
}

#[test]
fn tasks_measure_a_run_as_often_as_asked_and_a_stop_is_made_up_for() {
    let bench = Bench::new();
    let recipe = || bench.recipe(&["eval.tasks=words", "eval.task_every=4"]);
    let mut whole = bench.trainer("whole", recipe(), Start::Fresh, 1).unwrap();
    let (outcome, told) = run_measured(&mut whole, 0);
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(told.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [4, 8, 12]);
    let score = &told[2].1[0];
    assert_eq!((score.task.as_str(), score.metric.as_str(), score.rows), ("words", "acc,none", 2));
    assert_eq!(task_lines(&bench, "whole").len(), 3);
    let report = fs::read_to_string(bench.path("whole/report.html")).unwrap();
    assert!(report.contains("words: acc"));

    // A stop in the second and in the last evaluation: both are done again, once each.
    let mut halves = bench.trainer("halves", recipe(), Start::Fresh, 1).unwrap();
    assert_eq!(run_measured(&mut halves, 2).0, Outcome::Stopped);
    drop(halves);
    let mut halves = bench.trainer("halves", recipe(), Start::Resume, 1).unwrap();
    assert_eq!(run_measured(&mut halves, 2).0, Outcome::Stopped);
    assert_eq!(halves.step(), 12);
    drop(halves);
    let mut halves = bench.trainer("halves", recipe(), Start::Resume, 1).unwrap();
    assert_eq!(run_measured(&mut halves, 1).0, Outcome::Stopped, "stopped while it makes up");
    drop(halves);
    let mut halves = bench.trainer("halves", recipe(), Start::Resume, 1).unwrap();
    assert_eq!(run_measured(&mut halves, 0), (Outcome::Finished, vec![told[2].clone()]));
    assert_eq!(task_lines(&bench, "halves"), task_lines(&bench, "whole"));
    assert_eq!(bench.weights("halves", 12), bench.weights("whole", 12));
}
