use std::fs;

use serde_json::json;

use super::*;
use crate::{
    chat::Template,
    config::SpecialTokens,
    tokenizer::{self, Kind, Tokenizer},
};

const TEXT: &str = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!<|>_/\n";

struct Bench {
    dir: tempfile::TempDir,
    tokenizer: Tokenizer,
    template: Template,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kind = Kind::Character { min_count: 0 };
        let tokenizer = tokenizer::train(kind, [Ok(TEXT.to_owned())]).unwrap();
        Self { dir, tokenizer, template: Template::llada().unwrap() }
    }

    fn special(&self) -> SpecialTokens {
        self.tokenizer.special_tokens()
    }

    fn encoder(&self, longest: usize) -> Encoder<'_> {
        Encoder {
            tokenizer: &self.tokenizer,
            template: Some(&self.template),
            eos: self.special().eos.unwrap(),
            eot: self.special().eot,
            longest,
        }
    }

    fn open(&self, content: &str, held_out: f64, longest: usize) -> Result<Conversations> {
        let path = self.dir.path().join("rows.jsonl");
        fs::write(&path, content).unwrap();
        let files = Files { train: &[path], validation: None, held_out };
        Conversations::open(&files, &self.encoder(longest))
    }

    fn text(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap()
    }
}

#[test]
fn rows_are_laid_out_by_the_template() {
    let bench = Bench::new();
    let row = r#"{"system":"be kind","prompt":" hi ","response":"Hello. "}"#;
    let found = bench.open(row, 0.0, 200).unwrap();
    let pair = &found.train()[0][0];
    let (prompt, answer) = pair.ids().split_at(pair.prompt_len());
    assert_eq!(
        bench.text(prompt),
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(bench.text(answer), "Hello.<|eot_id|><|endoftext|>");
    assert_eq!((pair.answer_len(), pair.answer_bytes()), (8, 7));

    let plain = Encoder { template: None, ..bench.encoder(200) };
    let messages =
        row::messages(&row::columns(br#"{"prompt":"a<|eot_id|>","response":"b"}"#).unwrap())
            .unwrap();
    let pairs = plain.dialogue(&messages).unwrap().pairs;
    let eot = bench.special().eot.unwrap();
    assert_eq!(pairs[0].prompt_len(), 11);
    assert!(!pairs[0].ids().contains(&eot), "plain text gives no special token");
    assert_eq!(bench.text(&pairs[0].ids()[11..]), "b<|endoftext|>");
}

#[test]
fn a_template_that_always_asks_on_gives_the_same_sequences() {
    let bench = Bench::new();
    let always = "{% for message in messages %}{% set content = '<|start_header_id|>' + \
        message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}\
        {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
        {% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";
    fs::write(bench.dir.path().join("chat_template.jinja"), always).unwrap();
    let tokens = r#"{"bos_token": "<|startoftext|>"}"#;
    fs::write(bench.dir.path().join("tokenizer_config.json"), tokens).unwrap();
    let template = Template::from_dir(bench.dir.path()).unwrap();
    let messages =
        row::messages(&row::columns(br#"{"prompt":"hi","response":"yes"}"#).unwrap()).unwrap();
    let encoder = Encoder { template: Some(&template), ..bench.encoder(200) };
    let pairs = |encoder: &Encoder<'_>| encoder.dialogue(&messages).unwrap().pairs;
    assert_eq!(pairs(&encoder), pairs(&bench.encoder(200)));
}

/// Prompt and answer of each turn by a template, and whether it writes prompts otherwise.
fn laid_out(template: &str, row: &str) -> std::result::Result<(Vec<[String; 2]>, bool), String> {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("chat_template.jinja"), template).unwrap();
    let template = Template::from_dir(bench.dir.path()).unwrap();
    let messages = row::messages(&row::columns(row.as_bytes()).unwrap()).unwrap();
    let encoder = Encoder { template: Some(&template), ..bench.encoder(900) };
    let laid = encoder.dialogue(&messages)?;
    let split = |pair: &Pair| {
        let (prompt, answer) = pair.ids().split_at(pair.prompt_len());
        [bench.text(prompt), bench.text(answer)]
    };
    Ok((laid.pairs.iter().map(split).collect(), laid.rewritten))
}

const TURNS: &str = r#"{"messages":[{"role":"user","content":"q1"},
    {"role":"assistant","content":"a1"},{"role":"user","content":"q2"},
    {"role":"assistant","content":"a2<|eot_id|>"}]}"#;

#[test]
fn a_template_that_opens_thoughts_trains_on_all_that_it_adds() {
    // Asked for, an answer begins with an open thought; given, it has none, or an empty one.
    for (given, answer) in [("", ""), ("<think></think>", "</think>")] {
        let template = format!(
            "{{% for m in messages %}}<|start_header_id|>{{{{ m.role }}}}<|end_header_id|>\
             {{% if m.role == 'assistant' %}}{given}{{% endif %}}{{{{ m.content }}}}<|eot_id|>\
             {{% endfor %}}{{% if add_generation_prompt %}}\
             <|start_header_id|>assistant<|end_header_id|><think>\n{{% endif %}}"
        );
        let (pairs, rewritten) = laid_out(&template, TURNS).unwrap();
        assert!(rewritten);
        let [prompt, found] = &pairs[0];
        assert!(prompt.contains("<|start_header_id|>assistant<|end_header_id|>"), "{prompt}");
        let whole = format!("{prompt}{found}");
        let header = "<|start_header_id|>assistant<|end_header_id|>";
        assert!(whole.ends_with(&format!("{header}{given}a1<|eot_id|><|endoftext|>")), "{whole}");
        assert!(found.ends_with(&format!("{answer}a1<|eot_id|><|endoftext|>")), "{found}");
        // What a message spells stays text, and does not end the answer.
        assert!(pairs[1][1].ends_with("a2<|eot_id|><|eot_id|><|endoftext|>"), "{:?}", pairs[1]);
    }
}

#[test]
fn marks_say_what_is_trained() {
    let template = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\
        {% if m.role == 'assistant' %}{{ '\\n' }}{% generation %}{{ m.content }}<|eot_id|>\
        {% endgeneration %}!{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}\
        {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|><think>\
        {% endif %}";
    let (pairs, rewritten) = laid_out(template, TURNS).unwrap();
    assert!(!rewritten);
    let header = "<|start_header_id|>assistant<|end_header_id|>\n";
    assert!(pairs[0][0].ends_with(&format!("q1<|eot_id|>{header}")), "{:?}", pairs[0]);
    assert_eq!(pairs[0][1], "a1<|eot_id|><|endoftext|>");
    assert!(
        pairs[1][0].ends_with(&format!(
            "{header}a1<|eot_id|>!<|start_header_id|>user\
        <|end_header_id|>q2<|eot_id|>{header}"
        )),
        "{:?}",
        pairs[1]
    );
    assert_eq!(pairs[1][1], "a2<|eot_id|><|eot_id|><|endoftext|>");
    let forged = TURNS.replace("q1", "q\u{fdd2}1\u{fdd2}\u{fdd3}1\u{fdd3}");
    assert_eq!(laid_out(template, &forged).unwrap().0[0][1], pairs[0][1]);
    let never = "{% for m in messages %}{{ m.content }}{% endfor %}\
        {% if false %}{% generation %}{% endgeneration %}{% endif %}";
    assert!(laid_out(never, TURNS).unwrap_err().contains("does not mark"));
}

#[test]
fn a_template_that_changes_earlier_messages_is_refused() {
    let template = "{{ messages | length }}{% for m in messages %}{{ m.content }}|{% endfor %}";
    assert!(laid_out(template, TURNS).unwrap_err().contains("earlier messages otherwise"));
}

#[test]
fn special_tokens_in_contents_are_text() {
    let bench = Bench::new();
    let special = |ids: &[u32]| ids.iter().filter(|&&id| bench.tokenizer.is_special(id)).count();
    let pair = |prompt: &str, response: &str| {
        let row = json!({"prompt": prompt, "response": response}).to_string();
        bench.open(&row, 0.0, 200).unwrap().train()[0][0].clone()
    };
    let honest = pair("q", "r");
    for content in ["<|eot_id|>", "x <|mdm_mask|> y", "<|start_header_id|>assistant"] {
        for forged in [pair(content, "r"), pair("q", content)] {
            assert_eq!(special(forged.ids()), special(honest.ids()), "{content}");
            assert!(bench.text(forged.ids()).contains(content));
        }
    }
}

#[test]
fn bad_rows_are_counted_and_named_and_blank_lines_are_not() {
    let bench = Bench::new();
    let good = r#"{"prompt":"p","response":"r"}"#;
    let content = format!("\u{feff}{good}\n\n{{\n{good}\r\n{{}}\n  \n");
    let found = bench.open(&content, 0.0, 200).unwrap();
    assert_eq!((found.report().train, found.report().rejected), (2, 2));
    assert!(found.report().first_rejected[0].contains("rows.jsonl:3: not JSON"));
    assert!(found.report().first_rejected[1].contains("rows.jsonl:5: no field"));
    let many = found.train()[0][0].ids().len();
    let error = bench.open(good, 0.0, many - 1).unwrap_err();
    assert!(error.to_string().contains("rows.jsonl:1:") && error.hint().is_some(), "{error}");
    assert!(bench.open(good, 0.0, many).is_ok());
    assert!(bench.open("\n", 0.0, 9).unwrap_err().to_string().contains("0 row(s)"));
}

#[test]
fn a_list_has_its_rows_and_bad_ones_are_named() {
    let bench = Bench::new();
    let list = "\u{feff}[\n  {\"prompt\": \"a ],[\\\"\", \"response\": \"b\"},\n  7,\n  {\n    \
        \"prompt\": \"c\",\n    \"response\": \"d\", \"score\": NaN\n  },\n  {\"prompt\": \"e\"";
    let found = bench.open(list, 0.0, 200).unwrap();
    let rows =
        "{\"prompt\":\"a ],[\\\"\",\"response\":\"b\"}\n{\"prompt\":\"c\",\"response\":\"d\"}\n";
    assert_eq!(found.crc32c(), bench.open(rows, 0.0, 200).unwrap().crc32c());
    let rejected = &found.report().first_rejected;
    assert_eq!(found.report().rejected, 2);
    assert!(rejected[0].ends_with("rows.jsonl:3: not a JSON object"), "{rejected:?}");
    assert!(rejected[1].contains("rows.jsonl:8: the list does not end"), "{rejected:?}");
    // A file of lines whose first is a list loses none of the others.
    let lines = format!("[]\n{rows}");
    assert_eq!(bench.open(&lines, 0.0, 200).unwrap().crc32c(), found.crc32c());
    let none = bench.open("[]\n", 0.0, 200).unwrap_err();
    assert!(none.to_string().contains("0 row(s) were rejected"), "{none}");
}

#[test]
fn a_dialogue_is_one_pair_for_each_turn_and_each_is_drawn() {
    let bench = Bench::new();
    let turns = (0..3).flat_map(|i| {
        [("user", format!("q{i}")), ("assistant", format!("a{i}"))]
            .map(|(role, content)| json!({"role": role, "content": content}))
    });
    let row = json!({ "messages": turns.collect::<Vec<_>>() }).to_string();
    let found = bench.open(&row, 0.0, 500).unwrap();
    let dialogue = &found.train()[0];
    assert_eq!(dialogue.len(), 3);
    let last = bench.text(&dialogue[2].ids()[..dialogue[2].prompt_len()]);
    assert!(last.contains("a1<|eot_id|>") && last.contains("q2") && !last.contains("a2"), "{last}");
    let mut drawn = [0; 3];
    for n in 0..3000 {
        drawn[dialogue.iter().position(|pair| pair == found.pair(n, 5)).unwrap()] += 1;
    }
    assert!(drawn.iter().all(|n| (850..1150).contains(n)), "{drawn:?}");

    let longest = dialogue[1].ids().len();
    let cut = bench.open(&row, 0.0, longest).unwrap();
    assert_eq!((cut.train()[0].len(), cut.report().long_turns), (2, 1));
}

#[test]
fn every_dialogue_comes_once_in_each_epoch() {
    let bench = Bench::new();
    let row = |i: usize| format!("{{\"prompt\":\"p{i}\",\"response\":\"r\"}}\n");
    let content: String = (0..20).map(row).collect();
    let found = bench.open(&content, 0.0, 200).unwrap();
    let order = |epoch: u64| -> Vec<usize> {
        let numbers = epoch * 20..(epoch + 1) * 20;
        let at = |n| found.train().iter().position(|d| &d[0] == found.pair(n, 3)).unwrap();
        numbers.map(at).collect()
    };
    for epoch in 0..2 {
        let mut all = order(epoch);
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
    }
    assert_ne!(order(0), order(1));
}

#[test]
fn what_is_held_out_does_not_depend_on_the_order() {
    let bench = Bench::new();
    let rows: Vec<String> =
        (0..40).map(|i| format!("{{\"prompt\":\"p{i}\",\"response\":\"r\"}}")).collect();
    let held = |content: &str, fraction| -> Vec<String> {
        let found = bench.open(content, fraction, 200).unwrap();
        assert_eq!(found.train().len() + found.validation().len(), content.lines().count());
        let mut texts: Vec<_> = found.validation().iter().map(|d| bench.text(d[0].ids())).collect();
        texts.sort();
        texts
    };
    let forward = held(&rows.join("\n"), 0.2);
    assert!((3..14).contains(&forward.len()), "{}", forward.len());
    let mut reversed = rows.clone();
    reversed.reverse();
    assert_eq!(held(&reversed.join("\n"), 0.2), forward);
    assert_eq!(held(&rows[..2].join("\n"), 1e-9).len(), 1);
    assert_eq!(held(&rows[..2].join("\n"), 0.999).len(), 1);
    assert!(held(&rows.join("\n"), 0.0).is_empty());
    assert!(held(&rows[0], 0.5).is_empty());
}

#[test]
fn folders_and_lists_are_read_in_order_and_shards_refused() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("rows");
    fs::create_dir(&dir).unwrap();
    for (name, prompt) in [("b.jsonl", "2"), ("a.ndjson", "1"), ("c.txt", "no"), ("d.json", "no")] {
        fs::write(dir.join(name), json!({"prompt": prompt, "response": "r"}).to_string()).unwrap();
    }
    let open = |paths: &[PathBuf], validation: Option<&[PathBuf]>| {
        let files = Files { train: paths, validation, held_out: 0.0 };
        Conversations::open(&files, &bench.encoder(200))
    };
    let found = open(&[dir.clone(), dir.join("b.jsonl")], Some(&[dir.join("a.ndjson")])).unwrap();
    assert_eq!((found.train().len(), found.validation().len()), (3, 1));
    assert!(bench.text(found.train()[0][0].ids()).contains("\n\n1<"));
    assert_eq!(open(&[dir.join("d.json")], None).unwrap().train().len(), 1);
    assert_ne!(found.crc32c()[0], open(std::slice::from_ref(&dir), None).unwrap().crc32c()[0]);

    let shards = bench.dir.path().join("shards");
    fs::create_dir(&shards).unwrap();
    let error = open(std::slice::from_ref(&shards), None).unwrap_err();
    assert!(error.hint().unwrap().contains("`.jsonl` files"), "{error}");
    fs::write(shards.join("meta.json"), "{}").unwrap();
    let error = open(&[shards], None).unwrap_err();
    assert!(error.hint().unwrap().contains("llada train"), "{error}");
    let error = open(&[PathBuf::new()], None).unwrap_err();
    assert!(error.hint().unwrap().contains("data.path"), "{error}");
    assert!(open(&["none.jsonl".into()], None).unwrap_err().to_string().contains("none.jsonl"));
}

#[cfg(all(feature = "parquet", feature = "zstd"))]
#[test]
fn conversations_in_parquet_are_read_in_the_shapes_that_data_sets_have() {
    let bench = Bench::new();
    let open = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parquet");
        let path = PathBuf::from(folder).join(format!("{name}.parquet"));
        let files = Files { train: &[path], validation: None, held_out: 0.0 };
        Conversations::open(&files, &bench.encoder(200)).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let row = r#"{"prompt":"hi","response":"yo"}"#;
    let expected = bench.open(row, 0.0, 200).unwrap().train()[0].clone();
    // The rows of each, and how many are rejected.
    for (name, rows, rejected) in [
        ("messages", 2, 2),
        ("messages_in_lists", 1, 0),
        ("messages_as_json", 1, 1),
        ("sharegpt", 2, 1),
        ("pairs", 1, 1),
        ("prompt_completion", 1, 1),
        ("instructions", 2, 1),
    ] {
        let found = open(name);
        assert_eq!(found.train().len(), rows, "{name}");
        assert_eq!(found.train()[0], expected, "{name}");
        assert_eq!(found.report().rejected, rejected, "{name}");
    }
    let turns = open("instructions").train()[1].clone();
    assert_eq!((turns.len(), &turns[0]), (2, &expected[0]));
    let report = open("messages").report().clone();
    assert!(report.first_rejected[0].ends_with("messages.parquet:3: message 2 has no `role`"));
    let files =
        Files { train: &[bench.dir.path().join("x.parquet")], validation: None, held_out: 0.0 };
    fs::write(&files.train[0], "PAR1").unwrap();
    assert!(Conversations::open(&files, &bench.encoder(200)).is_err());
}
