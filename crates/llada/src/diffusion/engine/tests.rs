//! Works that come and go get what they get alone.

use proptest::prelude::*;

use super::*;
use crate::{
    checkpoint,
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, Logits, Prompt, Query, ReadSpec, Remasking, Sampler, TransferRule,
        cache::Refresh,
        generate,
        likelihood::{Alike, Greedy, Pair, Scoring, Settings},
    },
    eval::confidence::Confidence,
    golden::own_model,
    model::{Batch, MaskPredictor},
};

const SPECIAL: SpecialTokens =
    SpecialTokens { mask: Some(301), eos: Some(300), eot: None, bos: None, pad: None };

fn predictor(threads: usize) -> MaskPredictor {
    let model = checkpoint::load(&own_model("a_mha_untied")).unwrap();
    MaskPredictor::new(model, llada_kernels::Cpu::new(threads).unwrap()).unwrap()
}

/// Canvas number `i`: no two have the same sampler, prompt and length.
fn canvas(i: usize) -> Canvas {
    let (prefix, dual) = (Cache::Prefix(Refresh::default()), Cache::Dual(Refresh::default()));
    let sampler = Sampler {
        gen_length: 8 + 4 * (i % 3),
        steps: 8 + 4 * (i % 3),
        block_length: 4,
        blocks: if i % 4 == 3 { Blocks::Pure } else { Blocks::SemiAutoregressive },
        temperature: [0.0, 0.7][i % 2],
        cfg_scale: if i % 5 == 2 { 0.5 } else { 0.0 },
        cache: if i % 4 == 3 { Cache::None } else { [Cache::None, prefix, dual][i % 3] },
        transfer: if i.is_multiple_of(2) {
            TransferRule::Schedule
        } else {
            TransferRule::Threshold(0.5)
        },
        remasking: if i.is_multiple_of(2) { Remasking::ALL[i % 4] } else { Remasking::Entropy },
        seed: i as u64,
        ..Sampler::default()
    };
    let tokens = (0..3 + 5 * (i as u32 % 4)).map(|t| 3 + (t * 7 + i as u32) % 200).collect();
    let prompt = Prompt { tokens, padding: usize::from(i == 4) };
    Canvas::new(prompt, &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap()
}

const CANVASES: usize = 7;

/// A work of any kind.
#[derive(Debug)]
enum Task {
    Canvas(Box<Canvas>),
    Scoring(Scoring),
    Greedy(Greedy),
    Confidence(Confidence),
}

impl Task {
    fn work(&self) -> &dyn Work {
        match self {
            Self::Canvas(work) => &**work,
            Self::Scoring(work) => work,
            Self::Greedy(work) => work,
            Self::Confidence(work) => work,
        }
    }
}

impl Work for Task {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        self.work().plan(ahead)
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        self.work().read_spec(ahead, wanted)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        match self {
            Self::Canvas(work) => Work::commit(&mut **work, readings),
            Self::Scoring(work) => work.commit(readings),
            Self::Greedy(work) => work.commit(readings),
            Self::Confidence(work) => work.commit(readings),
        }
    }

    fn attention(&self) -> AttentionMask {
        self.work().attention()
    }

    fn cache(&self) -> Option<CacheRequest> {
        self.work().cache()
    }
}

/// A prompt and an answer, no two alike.
fn pair(i: usize) -> Pair {
    let tokens = |from: usize, count: usize| {
        (from..from + count).map(|t| 3 + (t * 11 + i * 5) as u32 % 200).collect()
    };
    Pair { prompt: tokens(0, 4 * (i % 3)), answer: tokens(40, 1 + i % 6) }
}

/// The greedy answer to a prompt, of which `token` is another one.
fn answered(predictor: &mut MaskPredictor, token: Option<(usize, u32)>) -> Pair {
    let sampler = Sampler { gen_length: 4, steps: 4, block_length: 4, ..Sampler::exact() };
    let prompt = vec![5, 6, 7];
    let all = AttentionMask::Bidirectional;
    let canvas = Canvas::new(prompt.clone().into(), &sampler, &SPECIAL, all).unwrap();
    let mut answer = run(predictor, [canvas]).unwrap()[0].tokens()[3..].to_vec();
    token.into_iter().for_each(|(i, token)| answer[i] = token);
    Pair { prompt, answer }
}

/// Work number `i`.
fn task(i: usize) -> Task {
    const GREEDY: usize = CANVASES + 6;
    let cfg_scale = if i.is_multiple_of(3) { 0.5 } else { 0.0 };
    match i {
        0..CANVASES => Task::Canvas(canvas(i).into()),
        CANVASES..GREEDY => {
            let settings = Settings { mc_num: 12, batch_size: 4, cfg_scale, seed: i as u64 };
            let config = &predictor(1).model().config.clone();
            let draws = &mut Alike { seed: settings.seed };
            let scoring = Scoring::new(config, &SPECIAL, &pair(i), &settings, 0, draws);
            Task::Scoring(scoring.unwrap())
        }
        GREEDY..TASKS if i.is_multiple_of(2) => {
            let mut predictor = predictor(1);
            let pair = answered(&mut predictor, (i == GREEDY + 1).then_some((2, 9)));
            let greedy = Greedy::new(&predictor.model().config, &SPECIAL, &pair, 0.0);
            Task::Greedy(greedy.unwrap())
        }
        _ => {
            let (mask, all) = (SPECIAL.mask.unwrap(), AttentionMask::Bidirectional);
            Task::Confidence(Confidence::new(&pair(i), mask, all, cfg_scale))
        }
    }
}

const TASKS: usize = CANVASES + 10;

/// How a work stands.
fn state(task: &Task) -> String {
    format!("{task:?}")
}

/// What each work gets alone: its states, from the first to the last.
fn alone() -> &'static Vec<Vec<String>> {
    static ALONE: std::sync::OnceLock<Vec<Vec<String>>> = std::sync::OnceLock::new();
    ALONE.get_or_init(|| {
        let mut predictor = predictor(1);
        let states = |i| {
            let (mut engine, task) = (Engine::new(&mut predictor), task(i));
            let mut states = vec![state(&task)];
            engine.admit(task);
            while !engine.is_empty() {
                engine
                    .step(usize::MAX, &mut |_, event| match event {
                        Event::Begun(_) => assert_eq!(states.len(), 1),
                        Event::Step(task) => states.push(state(task)),
                        Event::Done(task) => assert_eq!(states.last(), Some(&state(&task))),
                        Event::Failed(_, error) => panic!("{error}"),
                    })
                    .unwrap();
            }
            states
        };
        (0..TASKS).map(states).collect()
    })
}

#[derive(Debug, Clone)]
enum Act {
    Admit,
    Cancel(usize),
    Step(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => Just(Act::Admit),
        1 => (0..TASKS).prop_map(Act::Cancel),
        4 => prop_oneof![Just(usize::MAX), 1usize..80].prop_map(Act::Step),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_admissions_and_cancellations_gives_each_work_what_it_gets_alone(
        acts in acts(),
        order in Just((0..TASKS).collect::<Vec<_>>()).prop_shuffle(),
        threads in 1usize..3,
    ) {
        let alone = alone();
        let mut predictor = predictor(threads);
        let mut engine = Engine::new(&mut predictor);
        let (mut admitted, mut ended) = (0, Vec::new());
        for act in acts.into_iter().chain(std::iter::repeat_n(Act::Step(50), 2000)) {
            match act {
                Act::Admit if admitted < TASKS => {
                    prop_assert_eq!(engine.admit(task(order[admitted])).number(), admitted);
                    admitted += 1;
                }
                Act::Admit => {}
                Act::Cancel(i) => {
                    let task = engine.cancel(WorkId(i as u64));
                    let was_in = i < admitted && !ended.contains(&i);
                    prop_assert_eq!(task.is_some(), was_in);
                    if let Some(task) = task {
                        prop_assert!(alone[order[i]].contains(&state(&task)));
                        ended.push(i);
                    }
                }
                Act::Step(budget) => {
                    let mut wrong = false;
                    let count = engine.len();
                    let pass = engine.step(budget, &mut |id, event| match event {
                        Event::Begun(_) | Event::Step(_) => {}
                        Event::Done(task) => {
                            let states = &alone[order[id.number()]];
                            wrong |= states.last() != Some(&state(&task));
                            ended.push(id.number());
                        }
                        Event::Failed(_, error) => panic!("{error}"),
                    }).unwrap();
                    prop_assert!(!wrong);
                    prop_assert!(pass.works == 1 || pass.tokens_fed <= budget);
                    prop_assert_eq!(pass.works == 0, count == 0);
                    if count == 0 {
                        continue;
                    }
                }
            }
            for (id, task) in engine.works() {
                prop_assert!(alone[order[id.number()]].contains(&state(task)));
            }
            if engine.is_empty() && admitted == TASKS {
                break;
            }
        }
        prop_assert!(engine.is_empty());
        prop_assert_eq!(ended.len(), admitted);
    }
}

#[test]
fn works_of_every_kind_say_what_they_found() {
    let done = run(&mut predictor(2), (0..TASKS).map(task)).unwrap();
    let mut verdicts = Vec::new();
    for (i, task) in done.iter().enumerate() {
        match task {
            Task::Canvas(canvas) => assert_eq!(canvas.outcome().masks_left, 0),
            Task::Scoring(scoring) => {
                let estimate = scoring.estimate().unwrap();
                assert_eq!((estimate.samples, scoring.samples_done()), (12, 12));
                assert!(estimate.log_likelihood < 0.0, "{i}: {estimate:?}");
            }
            Task::Greedy(greedy) => verdicts.push(greedy.verdict().unwrap()),
            Task::Confidence(confidence) => assert!(confidence.score() < 0.0, "{i}"),
        }
    }
    assert_eq!(verdicts, [false, true]);
}

#[test]
fn many_queries_of_one_work_leave_room_for_the_others() {
    let mut model = predictor(1);
    let config = model.model().config.clone();
    let settings = Settings { mc_num: 64, batch_size: 4, cfg_scale: 0.0, seed: 1 };
    let pair = Pair { prompt: vec![9; 10], answer: (3..23).collect() };
    let draws = &mut Alike { seed: 1 };
    let scoring = Scoring::new(&config, &SPECIAL, &pair, &settings, 0, draws).unwrap();
    let mut engine = Engine::new(&mut model);
    engine.admit(Task::Scoring(scoring));
    engine.admit(Task::Canvas(short(&[5; 8]).into()));
    let mut works = Vec::new();
    while engine.len() == 2 {
        works.push([0, 0]);
        let steps = works.last_mut().unwrap();
        engine
            .step(100, &mut |id, event| {
                steps[id.number()] += usize::from(matches!(event, Event::Step(_)));
            })
            .unwrap();
    }
    // A step of the canvas beside what there is room for.
    assert_eq!(works, [[2, 1]; 4]);
}

/// How many steps each work of the engine takes in a pass of `budget` tokens, by its number.
fn steps<P: Predictor>(
    engine: &mut Engine<'_, P, Canvas>,
    budget: usize,
    taken: &mut Vec<usize>,
) -> Pass {
    let on = &mut |id: WorkId, event: Event<'_, Canvas>| {
        taken.resize(taken.len().max(id.number() + 1), 0);
        taken[id.number()] += usize::from(matches!(event, Event::Step(_)));
    };
    engine.step(budget, on).unwrap()
}

#[test]
fn a_short_work_takes_a_step_in_every_pass_beside_long_ones() {
    let mut predictor = Poisoned;
    for before in 0..9 {
        let mut engine = Engine::new(&mut predictor);
        for _ in 0..4 {
            engine.admit(canvas_of(&[5; 10], 50));
        }
        let mut taken = Vec::new();
        for _ in 0..before {
            assert_eq!(steps(&mut engine, 64, &mut taken).tokens_fed, 60);
        }
        engine.admit(short(&[5; 2]));
        for pass in 1..=4 {
            steps(&mut engine, 64, &mut taken);
            assert_eq!(taken[4], pass, "after {before} passes");
        }
        while !engine.is_empty() {
            let spread =
                |taken: &[usize]| taken.iter().max().unwrap() - taken.iter().min().unwrap();
            steps(&mut engine, 64, &mut taken);
            assert!(spread(&taken[..4]) <= 1, "{taken:?}");
        }
    }
}

#[test]
fn short_works_without_end_leave_a_long_one_its_share() {
    let mut predictor = Poisoned;
    let mut engine = Engine::new(&mut predictor);
    engine.admit(canvas_of(&[5; 10], 50));
    let (mut taken, mut fed) = (Vec::new(), 0);
    while taken.first().is_none_or(|&steps| steps < 50) {
        while engine.len() < 4 {
            engine.admit(short(&[5; 2]));
        }
        fed += steps(&mut engine, 18, &mut taken).tokens_fed;
    }
    // A fifth: it has a quarter of what four get, but who comes new is as if it had come with the last
    // query of those before it, which is a quarter of what they were fed.
    assert!(fed <= 5 * 50 * 60, "{fed}");
}

/// Every logit is the first token of the sequence, but those of one that begins with 7 are no numbers.
struct Poisoned;

impl Logits for Poisoned {
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        for &at in wanted {
            let sequence = batch.starts.iter().rposition(|&start| start <= at).unwrap();
            let first = batch.tokens[batch.starts[sequence]];
            let logit = if first == 7 { f32::NAN } else { first as f32 };
            out.extend((0..310).map(|token| logit + f32::from(u8::from(token == 5))));
        }
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        310
    }
}

fn short(tokens: &[u32]) -> Canvas {
    canvas_of(tokens, 4)
}

/// A canvas of so many masks after a prompt, and as many steps.
fn canvas_of(tokens: &[u32], masks: usize) -> Canvas {
    let sampler = Sampler { gen_length: masks, steps: masks, ..Sampler::default() };
    let prompt = Prompt::from(tokens.to_vec());
    Canvas::new(prompt, &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap()
}

#[test]
fn a_bad_sequence_fails_alone() {
    let mut predictor = Poisoned;
    let mut engine = Engine::new(&mut predictor);
    for first in [3, 7, 9999, 4] {
        engine.admit(short(&[first]));
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while !engine.is_empty() {
        engine
            .step(usize::MAX, &mut |id, event| match event {
                Event::Begun(_) | Event::Step(_) => {}
                Event::Done(canvas) => done.push((id.number(), canvas.tokens().to_vec())),
                Event::Failed(canvas, error) => {
                    failed.push((id.number(), canvas.outcome().nfe, error.to_string()));
                }
            })
            .unwrap();
    }
    assert_eq!(done, [(0, vec![3, 5, 5, 5, 5]), (3, vec![4, 5, 5, 5, 5])]);
    assert_eq!(failed.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    assert!(failed[0].2.contains("position 1"), "{}", failed[0].2);
    assert!(failed[1].2.contains("token 9999"), "{}", failed[1].2);
}

#[test]
fn an_answer_without_a_likelihood_fails_alone() {
    let config = predictor(1).model().config.clone();
    let mut predictor = Poisoned;
    let mut engine = Engine::new(&mut predictor);
    for first in [3, 7, 4] {
        let pair = Pair { prompt: vec![first], answer: vec![5, 6] };
        let settings = Settings { mc_num: 4, batch_size: 4, ..Settings::default() };
        let draws = &mut Alike { seed: 0 };
        let scoring = Scoring::new(&config, &SPECIAL, &pair, &settings, 0, draws);
        engine.admit(Task::Scoring(scoring.unwrap()));
        engine.admit(Task::Greedy(Greedy::new(&config, &SPECIAL, &pair, 0.0).unwrap()));
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while !engine.is_empty() {
        engine
            .step(9, &mut |id, event| match event {
                Event::Begun(_) | Event::Step(_) => {}
                Event::Done(_) => done.push(id.number()),
                Event::Failed(_, error) => failed.push((id.number(), error.to_string())),
            })
            .unwrap();
    }
    done.sort_unstable();
    failed.sort_unstable();
    assert_eq!(done, [0, 1, 4, 5]);
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [2, 3]);
    for (_, error) in failed {
        assert!(error.contains("are not finite numbers"), "{error}");
    }
}

#[test]
fn a_sequence_that_outgrows_the_model_fails_alone() {
    let mut model = predictor(1);
    let mut engine = Engine::new(&mut model);
    engine.admit(short(&[5; 254]));
    let id = engine.admit(short(&[5; 9]));
    let mut ended = Vec::new();
    while !engine.is_empty() {
        engine
            .step(usize::MAX, &mut |id, event| match event {
                Event::Begun(_) | Event::Step(_) => {}
                Event::Done(_) => ended.push((id, None)),
                Event::Failed(_, error) => ended.push((id, Some(error.to_string()))),
            })
            .unwrap();
    }
    let too_long = "a sequence of 258 tokens is longer than the model's 256".to_owned();
    assert_eq!(ended, [(WorkId(0), Some(too_long)), (id, None)]);
}

#[test]
fn a_budget_feeds_first_what_had_least() {
    let mut model = predictor(1);
    let mut engine = Engine::new(&mut model);
    for length in [40, 2, 3, 20] {
        engine.admit(short(&vec![5; length]));
    }
    let fed: Vec<Vec<usize>> = (0..6)
        .map(|_| {
            let mut works = Vec::new();
            let on = &mut |id: WorkId, event: Event<'_, _>| {
                if let Event::Step(_) = event {
                    works.push(id.number());
                }
            };
            engine.step(14, on).unwrap();
            works
        })
        .collect();
    // Sequences of 44, 6, 7 and 24 tokens.
    let both = vec![1, 2];
    assert_eq!(fed, [both.clone(), both.clone(), both.clone(), both, vec![3], vec![0]]);
}

/// Fails once in a while as a whole.
struct Flaky(MaskPredictor, usize);

impl Predictor for Flaky {
    fn vocabulary(&self) -> usize {
        self.0.vocabulary()
    }

    fn caches(&self) -> Option<AttentionMask> {
        self.0.caches()
    }

    fn open(&mut self, request: &CacheRequest, beginning: &[u32]) -> Result<crate::model::Opened> {
        Predictor::open(&mut self.0, request, beginning)
    }

    fn close(&mut self, id: crate::model::SequenceId) {
        self.0.close(id);
    }

    fn forward(
        &mut self,
        feed: &crate::model::Feed<'_>,
        reads: &[crate::diffusion::predictor::Read<'_>],
        out: &mut Vec<crate::diffusion::predictor::ReadResult>,
    ) -> Result<()> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(crate::model::ModelError::Sequence.into());
        }
        self.0.forward(feed, reads, out)
    }
}

#[test]
fn a_pass_that_failed_can_be_tried_again() {
    let mut canvases: Vec<Canvas> = (0..CANVASES).map(canvas).collect();
    generate::run(
        &mut predictor(1),
        &mut canvases,
        &mut |_, _| std::ops::ControlFlow::Continue(()),
    )
    .unwrap();
    let mut flaky = Flaky(predictor(1), 0);
    let mut again: Vec<Canvas> = (0..CANVASES).map(canvas).collect();
    let mut engine = Engine::new(&mut flaky);
    again.iter_mut().for_each(|canvas| _ = engine.admit(canvas));
    let mut failures = 0;
    while !engine.is_empty() {
        failures += usize::from(engine.step(usize::MAX, &mut |_, _| {}).is_err());
    }
    drop(engine);
    assert!(failures > 3);
    // A cache that was lost begins with a whole pass, which an approximate one need not have begun with.
    for (i, (found, expected)) in again.iter().zip(&canvases).enumerate() {
        if found.sampler().cache == Cache::None {
            assert_eq!(found.tokens(), expected.tokens(), "canvas {i}");
        }
        assert_eq!(found.outcome().masks_left, 0);
    }
}
