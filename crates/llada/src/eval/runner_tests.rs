//! Runs on a tiny model: what decides a result, what does not, and what is kept.

use std::collections::BTreeMap;

use llada_kernels::Cpu;

use super::*;
use crate::{
    Session,
    chat::Template,
    config::{ModelConfig, Objective},
    diffusion::{
        Settings,
        settings::tests::{example, outside},
    },
    eval::{Overrides, Task, prepare, report},
    eval::{Verdict, task::Code},
    model::MaskPredictor,
    tokenizer::{Kind as TokenizerKind, train},
};

struct Setup {
    session: Session,
    _dir: tempfile::TempDir,
    data: std::path::PathBuf,
}

fn setup(objective: Objective) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_path_buf();
    let text = "the cat sat on a mat. Question: Answer: 0123456789+-*/()=[]<>|_\n\n";
    let tokenizer = train(TokenizerKind::Character { min_count: 1 }, [Ok(text)]).unwrap();
    let special = tokenizer.special_tokens();
    let config = ModelConfig {
        max_sequence_length: 48,
        tokens: special,
        ..ModelConfig::llada(16, 1, 2, 32, tokenizer.vocab_size())
    };
    let config = config.with_objective(objective);
    let model = Model::init(config, 3).unwrap();
    let predictor = MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap();
    let template = Template::llada().unwrap();
    let rows: String = (0..5)
        .map(|i| format!("{{\"q\":\"cat {i}\",\"a\":[\"mat\",\"a cat\"],\"right\":{}}}\n", i % 2))
        .collect();
    std::fs::write(data.join("rows.jsonl"), rows).unwrap();
    Setup { session: Session::of(tokenizer, template, predictor), _dir: dir, data }
}

#[derive(Default)]
struct Log {
    seen: Vec<(usize, bool)>,
    stop_after: Option<usize>,
}

impl Observer for Log {
    fn record(&mut self, record: &Record, reused: bool) -> Result<()> {
        self.seen.push((record.doc_id, reused));
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stop_after.is_some_and(|n| self.seen.len() >= n)
    }
}

/// Passes programs that hold the text `mat`.
struct Contains;

impl Checker for Contains {
    fn check(&mut self, program: &str, _: &str, _: &Code) -> Result<Verdict> {
        Ok(Verdict { passed: program.contains("mat"), reason: "looked".into() })
    }
}

const CHOICE: &str = r#"
name = "pets"
version = 1
about = "a"
kind = "choice"
prompt = "Question: {{ q }}\nAnswer:"
[data]
files = ["rows.jsonl"]
[choice]
choices = "a"
answer = "right"
metrics = ["acc", "acc_norm"]
[likelihood]
mc_num = 4
batch_size = 2
"#;

const GENERATE: &str = r#"
name = "write"
version = 1
about = "a"
kind = "generate"
prompt = "{{ q }}"
target = "mat"
[data]
files = ["rows.jsonl"]
[generate]
stop = ["z"]
[generate.sampling]
gen_length = 6
temperature = 1.0
[code]
program = "mat {{ response }}"
timeout = 1.0
memory_mb = 64
"#;

impl Setup {
    fn run(
        &mut self,
        task: &str,
        asked: &Overrides,
        batch_size: usize,
        done: &BTreeMap<String, Record>,
        log: &mut Log,
    ) -> Result<report::Finished> {
        let task = Task::parse(task, "t").unwrap();
        let special = self.session.special;
        let ends = || self.session.delimiters();
        let plan = Plan::new(&task, asked, self.session.config(), &special, &ends)?;
        let prepared = prepare(task, &self.data, None, None)?;
        let mut checker = Contains;
        let Session { predictor, codec } = &mut self.session;
        let mut evaluator = Evaluator { predictor, codec, batch_size, checker: Some(&mut checker) };
        let outcome = evaluator.run(&prepared, &plan, done, log)?;
        Ok(report::Finished::new(prepared, plan, outcome))
    }
}

fn by_key(records: &[Record]) -> BTreeMap<String, Record> {
    records.iter().map(|r| (r.key.clone(), r.clone())).collect()
}

#[test]
fn results_depend_on_neither_the_batch_nor_interruptions() {
    let none = BTreeMap::new();
    for (task, asked) in [(CHOICE, Overrides::default()), (GENERATE, Overrides::default())] {
        let mut setup = setup(Objective::Diffusion);
        let whole = setup.run(task, &asked, 2, &none, &mut Log::default()).unwrap().outcome;
        assert_eq!(whole.records.len(), 5);
        let other = setup.run(task, &asked, 5, &none, &mut Log::default()).unwrap().outcome;
        assert_eq!(other.records, whole.records);

        let mut log = Log { stop_after: Some(2), ..Log::default() };
        let part = setup.run(task, &asked, 1, &none, &mut log).unwrap().outcome;
        assert!(part.interrupted && part.records.len() == 2, "{}", part.records.len());
        let mut log = Log::default();
        let rest = setup.run(task, &asked, 2, &by_key(&part.records), &mut log).unwrap().outcome;
        assert_eq!(rest.records, whole.records);
        assert_eq!(log.seen.iter().filter(|(_, reused)| *reused).count(), 2);
    }
}

#[test]
fn rows_of_another_run_are_refused_and_not_added_to() {
    let mut setup = setup(Objective::Diffusion);
    let done =
        setup.run(CHOICE, &Overrides::default(), 1, &BTreeMap::new(), &mut Log::default()).unwrap();
    let mut done = by_key(&done.outcome.records);
    let reused = |setup: &mut Setup, task: &str, asked: &Overrides| {
        let mut log = Log::default();
        match setup.run(task, asked, 1, &done, &mut log) {
            Ok(_) => Some(log.seen.iter().filter(|(_, reused)| *reused).count()),
            Err(error) => {
                assert!(error.to_string().contains("rows.jsonl:1 was evaluated with"), "{error}");
                assert!(error.hint().unwrap().contains("`samples_pets.jsonl`"));
                assert!(log.seen.is_empty());
                None
            }
        }
    };
    assert_eq!(reused(&mut setup, CHOICE, &Overrides::default()), Some(5));
    let asked = |change: &dyn Fn(&mut Overrides)| {
        let mut asked = Overrides::default();
        change(&mut asked);
        asked
    };
    for changed in [
        asked(&|a| a.seed = 1),
        asked(&|a| a.mc_num = Some(2)),
        asked(&|a| a.cfg_scale = Some(0.5)),
        asked(&|a| a.scoring = Some(Scoring::Confidence)),
    ] {
        assert_eq!(reused(&mut setup, CHOICE, &changed), None, "{changed:?}");
    }
    assert_eq!(reused(&mut setup, &CHOICE.replace("Answer:", "A:"), &Overrides::default()), None);
    let weights = setup.session.predictor.model().clone();
    let changed = Model::init(weights.config.clone(), 4).unwrap();
    setup.session.predictor = MaskPredictor::new(changed, Cpu::new(1).unwrap()).unwrap();
    assert_eq!(reused(&mut setup, CHOICE, &Overrides::default()), None);
    setup.session.predictor = MaskPredictor::new(weights, Cpu::new(1).unwrap()).unwrap();
    assert_eq!(reused(&mut setup, CHOICE, &Overrides::default()), Some(5));
    // Data that changed since, in a row that is done or in one that is not.
    let rows = std::fs::read_to_string(setup.data.join("rows.jsonl")).unwrap();
    done.retain(|_, record| record.doc_id < 4);
    let changed = |setup: &mut Setup, row: usize| {
        let text = rows.replace(&format!("cat {row}"), &format!("dog {row}"));
        std::fs::write(setup.data.join("rows.jsonl"), text).unwrap();
        setup.run(CHOICE, &Overrides::default(), 1, &done, &mut Log::default())
    };
    let error = changed(&mut setup, 3).unwrap_err();
    assert!(error.to_string().contains("rows.jsonl:4 was evaluated with"), "{error}");
    assert_eq!(changed(&mut setup, 4).unwrap().outcome.records.len(), 5);
    // A file that holds rows of two runs already.
    let mut other = done.values().next().unwrap().clone();
    other.key = "another".into();
    done.insert(other.key.clone(), other);
    assert!(setup.run(CHOICE, &Overrides::default(), 1, &done, &mut Log::default()).is_err());
}

#[test]
fn a_causal_model_scores_and_writes_from_left_to_right() {
    let mut setup = setup(Objective::Autoregressive);
    let none = BTreeMap::new();
    for task in [CHOICE, GENERATE] {
        let done = setup.run(task, &Overrides::default(), 2, &none, &mut Log::default()).unwrap();
        assert_eq!(done.outcome.records.len(), 5);
    }
    let confidence = Overrides { scoring: Some(Scoring::Confidence), ..Overrides::default() };
    let error = setup.run(CHOICE, &confidence, 1, &none, &mut Log::default()).unwrap_err();
    assert!(error.hint().unwrap().contains("--scoring likelihood"));
    let guided = Overrides { cfg_scale: Some(1.0), ..Overrides::default() };
    assert!(setup.run(CHOICE, &guided, 1, &none, &mut Log::default()).is_err());
}

#[test]
fn rows_that_do_not_fit_are_named_or_cut() {
    let mut setup = setup(Objective::Diffusion);
    let long = CHOICE.replace("Question:", &"cat ".repeat(20));
    let none = BTreeMap::new();
    let asked = Overrides::default();
    let outcome = setup.run(&long, &asked, 1, &none, &mut Log::default()).unwrap().outcome;
    assert_eq!((outcome.records.len(), outcome.too_long.len()), (0, 5));
    assert!(outcome.too_long[0].reason.contains("do not fit the model's 48"), "{outcome:?}");
    let asked = Overrides { truncate: true, ..asked };
    let outcome = setup.run(&long, &asked, 1, &none, &mut Log::default()).unwrap().outcome;
    assert_eq!((outcome.records.len(), outcome.truncated), (5, 5));
}

#[test]
fn a_task_proposes_every_setting_of_the_table() {
    let with = |name: &str, value: &str| {
        let section = format!("[generate.sampling]\n{name} = \"{value}\"\n");
        let proposed = ["gen_length", "temperature"];
        let is_other = |line: &&str| !proposed.iter().any(|name| line.starts_with(name));
        let others = GENERATE.lines().filter(is_other);
        let text = others.collect::<Vec<_>>().join("\n");
        Task::parse(&text.replace("[generate.sampling]\n", &section), "t")
    };
    for key in Settings::KEYS {
        let task = with(key.name, &example(key)).unwrap();
        let mut expected = Settings::default();
        expected.set(key.name, &example(key)).unwrap();
        assert_eq!(task.generate.unwrap().sampling, expected);
        for wrong in outside(key) {
            let error = with(key.name, &wrong).unwrap_err().to_string();
            let range = key.range().unwrap();
            let expected = format!("{} is {wrong}, which is not {range}", key.name);
            assert!(error.contains(&expected) && error.contains("line "), "{error}");
        }
    }
    let error = with("wings", "2").unwrap_err().to_string();
    assert!(error.contains("unknown setting `wings`; use one of: preset, "), "{error}");
}

#[test]
fn results_have_the_form_of_the_harness() {
    let mut setup = setup(Objective::Diffusion);
    let none = BTreeMap::new();
    let sampling = Settings { gen_length: Some(4), ..Settings::default() };
    let asked = Overrides { sampling, ..Overrides::default() };
    let choice = setup.run(CHOICE, &asked, 1, &none, &mut Log::default()).unwrap();
    let write = setup.run(GENERATE, &asked, 1, &none, &mut Log::default()).unwrap();
    let right = choice.outcome.records.iter().map(|r| match r.metrics["acc,none"] {
        Value::One(x) => x,
        Value::Share(..) => panic!("acc is a mean"),
    });
    let mean = right.sum::<f64>() / 5.0;
    let failed = report::Failed { task: "gone".into(), reason: "no data".into() };
    let json = report::json(&[choice, write], &[failed], json!({ "model": "llada" }));
    assert_eq!(json["errors"], json!({ "gone": "no data" }));
    assert_eq!(json["results"]["pets"]["acc,none"], mean);
    // √(p (1 − p) / (n − 1)) for zeros and ones.
    let error = json["results"]["pets"]["acc_stderr,none"].as_f64().unwrap();
    assert!((error - (mean * (1.0 - mean) / 4.0).sqrt()).abs() < 1e-12);
    assert_eq!(json["results"]["write"]["pass@1,none"], 1.0);
    assert_eq!(json["configs"]["write"]["settings"]["sampler"]["gen_length"], 4);
    assert_eq!(json["n-samples"]["pets"]["effective"], 5);
    assert_eq!(json["higher_is_better"]["pets"]["acc"], true);
    assert_eq!(json["versions"]["pets"], 1);
    assert_eq!(json["config"]["model"], "llada");
}

#[test]
fn windows_cover_a_document_once() {
    let windows = windows((0..10).collect(), 4);
    let pairs: Vec<_> = windows.iter().map(|p| (p.prompt.clone(), p.answer.clone())).collect();
    let expected = [
        (vec![], vec![0, 1, 2]),
        (vec![2], vec![3, 4, 5]),
        (vec![5], vec![6, 7, 8]),
        (vec![6, 7, 8], vec![9]),
    ];
    assert_eq!(pairs, expected);
}
