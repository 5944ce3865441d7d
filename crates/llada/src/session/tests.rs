use super::*;
use crate::diffusion::Settings;

#[test]
fn a_run_stands_for_its_newest_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    assert!(newest_checkpoint(dir.path()).is_none());
    for step in ["step-9", "step-10", "step-11", "step-x", "other"] {
        let step = dir.path().join("checkpoints").join(step);
        std::fs::create_dir_all(&step).unwrap();
        if !step.ends_with("step-11") {
            std::fs::write(step.join("config.json"), "{}").unwrap();
        }
    }
    assert!(newest_checkpoint(dir.path()).unwrap().ends_with("checkpoints/step-10"));
    // What is opened is the checkpoint, which is none here.
    let error = Session::open_on(dir.path(), Cpu::new(1).unwrap()).unwrap_err().to_string();
    assert!(error.contains("step-10"), "{error}");
}

#[test]
fn models_are_called_by_their_names() {
    assert_eq!(name(Path::new("/c/models--a--b/snapshots/0123")), "a/b");
    assert_eq!(name(Path::new("/no/such/folder")), "folder");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.Q8_0.gguf");
    std::fs::write(&file, "").unwrap();
    assert_eq!(name(&file), "m.Q8_0");
}

fn storyteller() -> Session {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller");
    Session::open_on(model, Cpu::new(1).unwrap()).unwrap()
}

#[test]
fn a_folder_is_opened_with_all_that_belongs_to_it() {
    let session = storyteller();
    assert_eq!(session.name, "storyteller");
    assert!(session.special.mask.is_some() && !session.is_for_chat().unwrap());
    assert_eq!(session.encode("").unwrap(), [session.special.eos.unwrap()]);
    let missing = Session::open("/no/such/model").unwrap_err();
    assert!(missing.to_string().contains("/no/such/model"), "{missing}");
}

#[test]
fn holes_are_filled_and_masks_of_a_prompt_too() {
    let mut session = storyteller();
    let template = "The {{hole}} sat on the {{hole:2}}.".parse().unwrap();
    let frame = session.frame(&template).unwrap();
    let asked = Settings { seed: Some(1), ..Settings::default() };
    let sampler = Codec::infill_sampler(&asked).unwrap();
    let found = session.hole_lengths(&frame, &sampler, 2, &mut || false).unwrap().unwrap();
    assert!((1..=2).contains(&found.lengths[0]) && found.lengths[1] == 2);
    let mut canvases = [session.infill(&frame, &found.lengths, &sampler).unwrap()];
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(canvases[0].outcome().masks_left, 0);
    assert!(session.hole_lengths(&frame, &sampler, 2, &mut || true).unwrap().is_none());

    let mut prompt = session.encode("Once upon a").unwrap();
    prompt.push(session.special.mask.unwrap());
    let asked = Settings { gen_length: Some(4), ..asked };
    let sampler = session.sampler(&asked, prompt.len()).unwrap();
    let mut canvases = [session.canvas(prompt, &sampler).unwrap()];
    assert_eq!(session.text_so_far(&canvases[0]).unwrap(), "");
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let text = session.text(&canvases[0]).unwrap();
    assert!(text.starts_with("Once upon a"), "{text}");
    assert!(text.ends_with(&session.text_so_far(&canvases[0]).unwrap()), "{text}");
}

#[test]
fn settings_are_those_asked_for_then_those_proposed() {
    let mut session = storyteller();
    session.proposed = Settings { temperature: Some(0.5), seed: Some(3), ..Settings::NONE };
    let asked = Settings { gen_length: Some(8), ..Settings::default() };
    let s = session.sampler(&asked, 10).unwrap();
    assert_eq!((s.gen_length, s.temperature, s.seed), (8, 0.5, 3));
    let s = session.chat_sampler(&Settings { seed: Some(4), ..asked }).unwrap();
    assert!(s.stop_at_eos && s.gen_length == 8 && s.seed == 4);
    let limit = session.config().max_sequence_length;
    let error = session.sampler(&Settings::default(), limit).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("shorten the prompt"));
}
