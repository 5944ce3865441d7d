//! Tasks from their file to what the model is asked.

use std::path::Path;

use super::*;
use crate::Error;

/// Writes files below a fresh folder.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn shipped(name: &str, root: &Path, fewshot: Option<usize>) -> Prepared {
    prepare(shipped::task(name).unwrap(), root, fewshot, None).unwrap()
}

fn complaint(text: &str) -> String {
    let error = Task::parse(text, "my.toml").unwrap_err();
    assert!(error.hint().is_some());
    error.to_string()
}

const MMLU_TEST: &str = "question,choice0,choice1,choice2,choice3,answer\n\
    \"How many, in all? \",1,2,3,4,1\nWhich?,a,b,c,d,D\nBad?,a,b,c,d,7\nShort?,a\n";
const MMLU_DEV: &str = "question,choice0,choice1,choice2,choice3,answer\n\
    One?,w,x,y,z,0\nTwo?,w,x,y,z,3\nThree?,w,x,y,z,1\n";

#[test]
fn mmlu_has_groups_examples_and_named_bad_rows() {
    let dir = folder(&[
        ("mmlu/test/abstract_algebra_test.csv", MMLU_TEST),
        ("mmlu/dev/abstract_algebra_dev.csv", MMLU_DEV),
        ("mmlu/test/virology_test.csv", MMLU_TEST),
        ("mmlu/dev/virology_dev.csv", MMLU_DEV),
    ]);
    let prepared = shipped("mmlu", dir.path(), Some(2));
    let groups: Vec<_> = prepared.examples.iter().map(|e| e.group.as_deref().unwrap()).collect();
    assert_eq!(groups, ["abstract_algebra", "abstract_algebra", "virology", "virology"]);
    let Request::Choice { context, delimiter, choices, answer } = &prepared.examples[0].request
    else {
        panic!("{:?}", prepared.examples[0])
    };
    assert_eq!(
        context,
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n\
         One?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\nTwo?\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\n\
         How many, in all?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    );
    assert_eq!((delimiter.as_str(), choices.join(""), *answer), (" ", "ABCD".into(), 1));
    let Request::Choice { answer, .. } = &prepared.examples[1].request else { panic!() };
    assert_eq!(*answer, 3, "a letter is a label too");

    let bad: Vec<_> = prepared.bad.iter().map(|b| (b.place.clone(), b.reason.clone())).collect();
    assert_eq!(bad.len(), 4);
    assert!(bad[0].0.ends_with("abstract_algebra_test.csv:4"), "{bad:?}");
    assert_eq!(bad[0].1, "the answer `7` is none of the 4 choices");
    assert!(bad[1].0.ends_with(":5") && bad[1].1 == "2 fields instead of 6", "{bad:?}");

    let limited = prepare(shipped::task("mmlu").unwrap(), dir.path(), Some(0), Some(1)).unwrap();
    assert_eq!((limited.examples.len(), limited.rows), (2, 4));
    assert_eq!(limited.examples[1].index, 4, "a limit does not renumber rows");
    let error = prepare(shipped::task("mmlu").unwrap(), dir.path(), None, None).unwrap_err();
    assert_eq!(error.hint().unwrap(), "use --fewshot 3 or less");
}

#[test]
fn mmlu_is_read_as_its_authors_publish_it() {
    // Six columns without a header: quoted line ends, commas and doubled quotes.
    let test = "\"What does \"\"it\"\"\nmean, here?\",\"a, b\",2,3,4,B\nquestion,1,2,3,4,D\n";
    let dev = "One?,w,x,y,z,A\r\nTwo?,w,x,y,z,D\r\n";
    let renamed = format!("Question,A,B,C,D,Answer\n{dev}");
    let reordered =
        format!("{}\n7,C,Three?,w,x,y,z\n", ",answer,question,choice0,choice1,choice2,choice3");
    for (name, dev, first) in [
        ("mmlu/dev/x_dev.csv", dev, "One?"),
        ("mmlu/dev/x_dev.csv", &renamed, "One?"),
        ("mmlu/dev/x_dev.csv", &reordered, "Three?"),
    ] {
        let dir = folder(&[("mmlu/test/x_test.csv", test), (name, dev)]);
        let prepared = shipped("mmlu", dir.path(), Some(1));
        let asked: Vec<_> = prepared.examples.iter().map(|e| e.request.clone()).collect();
        let Request::Choice { context, answer, .. } = &asked[0] else { panic!() };
        let letter = if first == "One?" { "A" } else { "C" };
        let expected = format!(
            "{first}\nA. w\nB. x\nC. y\nD. z\nAnswer: {letter}\n\n\
             What does \"it\"\nmean, here?\nA. a, b\nB. 2\nC. 3\nD. 4\nAnswer:"
        );
        assert!(context.ends_with(&expected), "{context}");
        assert_eq!((*answer, asked.len(), prepared.bad.len()), (1, 2, 0));
        let Request::Choice { answer, .. } = &asked[1] else { panic!() };
        assert_eq!(*answer, 3, "a row that begins with the name of a column is a row");
        // The folder of the test files alone finds its neighbour.
        let prepared = shipped("mmlu", &dir.path().join("mmlu/test"), Some(1));
        assert_eq!(prepared.examples.len(), 2);
    }
}

#[test]
fn columns_name_those_of_any_file_without_a_header() {
    let task = "name = \"t\"\nversion = 1\nabout = \"a\"\nkind = \"generate\"\n\
        prompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\n[data]\nfiles = [\"f.tsv\"]\n\
        columns = [\"q\", \"a\"]\n[generate]\n";
    for (text, rows) in [("x\t1\ny\t2\n", 2), ("Q\tA\nx\t1\n", 1), ("a\tq\n1\tx\n", 1)] {
        let dir = folder(&[("f.tsv", text)]);
        let prepared = prepare(Task::parse(task, "t").unwrap(), dir.path(), None, None).unwrap();
        assert_eq!(prepared.examples.len(), rows);
        assert_eq!(prepared.examples[0].request.context(), "x", "{text}");
    }
}

#[test]
fn examples_are_drawn_as_the_harness_draws_them() {
    let row = |i: usize| format!("{{\"question\":\"q{i}\",\"answer\":\"#### {i}\"}}\n");
    let train: String = (0..7473).map(row).collect();
    let test: String = (0..3).map(row).collect();
    let dir = folder(&[("gsm8k/train.jsonl", &train), ("gsm8k/test.jsonl", &test)]);
    let prepared = shipped("gsm8k", dir.path(), None);
    // `random.Random(1234).sample(range(7473), 5)` for one row after the other.
    let drawn =
        [[6374, 3610, 957, 61, 742], [7462, 6610, 4769, 286, 5501], [5677, 687, 806, 6279, 2905]];
    for (i, (example, drawn)) in prepared.examples.iter().zip(drawn).enumerate() {
        let shots: String =
            drawn.iter().map(|n| format!("Question: q{n}\nAnswer: #### {n}\n\n")).collect();
        assert_eq!(example.request.context(), format!("{shots}Question: q{i}\nAnswer:"));
    }
}

#[test]
fn arc_takes_nested_columns_and_piqa_a_file_of_labels() {
    let arc = r#"{"question":{"stem":"Why?","choices":[{"text":"x","label":"1"},{"text":"yy","label":"2"}]},"answerKey":"2"}"#;
    let dir = folder(&[
        ("arc_challenge_test.jsonl", &format!("{arc}\n[]\n{{\n")),
        ("piqa/valid.jsonl", "{\"goal\":\"g\",\"sol1\":\"s\",\"sol2\":\"t\"}\n"),
        ("piqa/valid-labels.lst", "1\n"),
    ]);
    let prepared = shipped("arc_challenge", dir.path(), None);
    let expected = Request::Choice {
        context: "Question: Why?\nAnswer:".into(),
        delimiter: " ".into(),
        choices: vec!["x".into(), "yy".into()],
        answer: 1,
    };
    assert_eq!(prepared.examples[0].request, expected);
    assert_eq!(prepared.bad.len(), 2);
    let prepared = shipped("piqa", dir.path(), None);
    let Request::Choice { answer, choices, .. } = &prepared.examples[0].request else { panic!() };
    assert_eq!((*answer, choices.len()), (1, 2));

    std::fs::write(dir.path().join("piqa/valid-labels.lst"), "1\n0\n").unwrap();
    let error = prepare(shipped::task("piqa").unwrap(), dir.path(), None, None).unwrap_err();
    assert!(error.to_string().contains("2 labels for 1 rows"), "{error}");
}

#[test]
fn bbh_takes_its_examples_from_a_text() {
    let text = "canary\n-----\nSort.\n\nQ: a\nA: Let's\nSo the answer is a.\n\nQ: b\nA: c\n";
    let data = r#"{"canary":"x","examples":[{"input":"i","target":"t"},{"input":"j"}]}"#;
    let dir = folder(&[("bbh/bbh/sort.json", data), ("bbh/cot-prompts/sort.txt", text)]);
    let prepared = shipped("bbh", dir.path(), Some(2));
    assert_eq!(
        prepared.examples[0].request.context(),
        "Sort.\n\nQ: a\nA: Let's\nSo the answer is a.\n\nQ: b\nA: c\n\n\
         Q: i\nA: Let's think step by step.\n"
    );
    assert!(prepared.bad[0].place.ends_with("sort.json#2"), "{:?}", prepared.bad);
    let none = shipped("bbh", &dir.path().join("bbh/bbh"), Some(0));
    assert_eq!(none.examples[0].request.context(), "Sort.\n\nQ: i\nA: Let's think step by step.\n");
}

#[test]
fn mbpp_takes_its_examples_from_its_own_rows() {
    let row = |id: usize| {
        format!(
            r#"{{"task_id":{id},"text":"T{id}.","code":"c{id}","test_setup_code":"","test_list":["a","b"]}}"#
        ) + "\n"
    };
    let rows: String = [1, 2, 3, 4, 11, 511].map(row).concat();
    let dir = folder(&[("mbpp.jsonl", &rows)]);
    let prepared = shipped("mbpp", dir.path(), Some(1));
    assert_eq!(prepared.examples.len(), 1);
    let ask = |id: usize| {
        format!(
            "You are an expert Python programmer, and here is your task: T{id}. Your code should \
             pass these tests:\n\na\nb\n[BEGIN]\n"
        )
    };
    let expected = format!("{}c2\n[DONE]\n\n{}", ask(2), ask(11));
    assert_eq!(prepared.examples[0].request.context(), expected);
}

#[test]
fn documents_of_a_text_are_cleaned_and_counted_as_stored() {
    let text = " \n = One = \n \n A line @-@ up , ( here ) . \n = = Part = = \n = Two = \n b\n";
    let dir = folder(&[("wikitext2_test.txt", text)]);
    let prepared = shipped("wikitext", dir.path(), None);
    let documents: Vec<_> = prepared.examples.iter().map(|e| e.request.clone()).collect();
    let Request::Document { text, words, bytes } = &documents[0] else { panic!() };
    assert_eq!(text, " = One =\n\nA line-up, (here).\n== Part ==\n");
    let stored = " = One = \n \n A line @-@ up , ( here ) . \n = = Part = = \n";
    // re.split(r"\s+", stored) has an empty part at either end.
    assert_eq!((*words, *bytes), (19, stored.len()));
    assert_eq!(documents.len(), 2);
    assert!(prepared.examples[1].place.ends_with(":6"), "{}", prepared.examples[1].place);
}

#[test]
fn words_are_counted_as_python_splits() {
    // len(re.split(r"\s+", text))
    for (text, count) in
        [("a b", 2), (" a  b\u{1c}c ", 5), ("a\n\u{a0}\u{85}b", 2), ("a\u{200b}b", 1)]
    {
        assert_eq!(request::words(text), count, "{text:?}");
    }
}

#[test]
fn puzzles_lambada_and_a_single_file() {
    let dir = folder(&[
        ("4x4_test_sudoku.csv", "Puzzle,Solution\n3012,3412\n3412,3412\n"),
        ("countdown_cd3_test.jsonl", "{\"input\":\"30,100,93\",\"output\":\"23\"}\n"),
        ("lambada_test.jsonl", "{\"text\":\"one two. Three four\"}\n"),
    ]);
    let sudoku = shipped("sudoku", dir.path(), None);
    assert_eq!((sudoku.examples.len(), sudoku.bad.len()), (1, 1), "one has no blank");
    assert!(sudoku.examples[0].request.context().ends_with("puzzle: 3012\n"));
    let countdown = shipped("countdown", &dir.path().join("countdown_cd3_test.jsonl"), None);
    let Request::Generate { expression, context, .. } = &countdown.examples[0].request else {
        panic!()
    };
    assert_eq!(expression.as_ref().unwrap(), &(vec![30, 100, 93], 23));
    assert!(context.ends_with("Numbers: [30, 100, 93]\nTarget: 23\n"), "{context}");
    assert!(context.contains(r"inside \boxed{} tags"), "{context}");
    let lambada = shipped("lambada", dir.path(), None);
    let expected =
        Request::Continuation { context: "one two. Three".into(), target: " four".into() };
    assert_eq!(lambada.examples[0].request, expected);
}

#[test]
fn missing_data_says_what_was_looked_for_and_where_to_get_it() {
    let dir = folder(&[("HumanEval.jsonl.gz", "x"), ("empty/gsm8k_test.jsonl", "\n")]);
    let error = prepare(shipped::task("humaneval").unwrap(), dir.path(), None, None).unwrap_err();
    assert!(error.to_string().contains("looked for `HumanEval.jsonl`"), "{error}");
    assert!(error.hint().unwrap().contains("gunzip"));
    let archive = dir.path().join("HumanEval.jsonl.gz");
    let error = prepare(shipped::task("humaneval").unwrap(), &archive, None, None).unwrap_err();
    assert!(error.to_string().contains("unpack"), "{error}");
    let empty = dir.path().join("empty");
    let error = prepare(shipped::task("gsm8k").unwrap(), &empty, Some(0), None).unwrap_err();
    assert!(matches!(error, Error::Eval(EvalError::NoRows { .. })), "{error}");
}

#[test]
fn mistakes_in_a_task_file_are_named() {
    let good = "name = \"t\"\nversion = 1\nabout = \"a\"\nkind = \"generate\"\nprompt = \"p\"\n\
                target = \"t\"\n[data]\nfiles = [\"f.jsonl\"]\n[generate]\n";
    assert!(Task::parse(good, "t").is_ok());
    let cases = [
        (good.replace("about", "abuot"), "line 3: unknown field `abuot`"),
        (good.replace("generate\"", "chioce\""), "unknown variant `chioce`"),
        (good.replace("target = \"t\"\n", ""), "nothing judges the response"),
        (good.replace("[generate]", ""), "`generate` is missing"),
        (good.replace("generate\"", "perplexity\""), "`generate` has no meaning"),
        (format!("{good}[cells]\ngiven = \"g\"\nblank = \"00\"\n"), "line 12: invalid value"),
        (format!("{good}[fewshot]\ncount = 1\n"), "either `files` or `text`"),
        (good.replace("\"f.jsonl\"", ""), "names no file"),
        (
            good.replace("[generate]", "rows = [{ x = 1 }]\n[generate]"),
            "`data.files` has no meaning",
        ),
        (good.replace("\"t\"\nversion", "\"../t\"\nversion"), "`name` must consist"),
        (good.replace("version = 1", "version = "), "line 2"),
    ];
    for (text, expected) in cases {
        let found = complaint(&text);
        assert!(found.contains(expected), "{found}\n{expected}");
    }
    let dir = folder(&[("f.jsonl", "{\"x\":1}\n")]);
    let bad = format!("{good}[[extract]]\nname = \"e\"\nregex = \"(\"\n");
    let error = prepare(Task::parse(&bad, "t").unwrap(), dir.path(), None, None).unwrap_err();
    assert!(error.to_string().contains("is no regex"), "{error}");
    let bad = good.replace("\"p\"", "\"{{ y }}\"");
    let error = prepare(Task::parse(&bad, "t").unwrap(), dir.path(), None, None).unwrap_err();
    assert!(error.to_string().contains("undefined"), "{error}");
}

#[test]
fn rows_may_stand_in_the_task_file() {
    let text = "name = \"t\"\nversion = 1\nabout = \"a\"\nkind = \"generate\"\nprompt = \"{{ x }}\"\n\
                target = \"{{ y }}\"\n[generate]\n[data]\nwhere = \"x != 'left out'\"\n\
                rows = [{ x = \"a\", y = 1 }, { x = \"b\" }, { x = \"left out\" }]\n";
    let task = Task::parse(text, "t").unwrap();
    let json = serde_json::to_value(&task).unwrap();
    assert!(json["data"]["rows"].is_null(), "results do not repeat the rows");
    // No folder is looked at.
    let prepared = prepare(task, Path::new("/no/such/folder"), None, None).unwrap();
    assert_eq!((prepared.rows, prepared.examples[0].place.as_str()), (1, "t#1"));
    assert_eq!(prepared.examples[0].request.context(), "a");
    assert_eq!(prepared.bad.len(), 1);
    assert_eq!(prepared.bad[0].place, "t#2");
}

/// Lower-case words, without the articles that the comparison leaves out.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    let words = words.filter(|word| !word.is_empty()).map(str::to_lowercase);
    words.filter(|word| !["the", "a", "an"].contains(&word.as_str())).collect()
}

#[test]
fn the_tasks_that_ship_with_their_rows_ask_what_they_say() {
    let nowhere = Path::new("/no/such/folder");
    let inline = |(name, _): &(&str, &str)| shipped::task(name).unwrap().data.is_inline();
    let names: Vec<&str> = shipped::SHIPPED.iter().filter(|s| inline(s)).map(|s| s.0).collect();
    assert_eq!(names, ["tale_questions", "tale_words"]);
    for name in names {
        let prepared = shipped(name, nowhere, None);
        assert!(prepared.bad.is_empty() && prepared.rows >= 100, "{name}");
        let asked = prepared.examples.iter().map(|e| e.request.context());
        assert_eq!(asked.collect::<std::collections::BTreeSet<_>>().len(), prepared.rows, "{name}");
        let mut places = [0; 4];
        for example in &prepared.examples {
            match &example.request {
                // The answer is in the sentence by no word, and its place tells nothing.
                Request::Choice { context, choices, answer, .. } => {
                    let asked = words(context);
                    assert!(
                        choices.iter().all(|c| !asked.contains(&c.to_lowercase())),
                        "{context}"
                    );
                    let different: std::collections::BTreeSet<_> = choices.iter().collect();
                    assert_eq!((choices.len(), different.len()), (4, 4), "{context}");
                    places[*answer] += 1;
                }
                // The answer is in the passage as it stands.
                Request::Generate { context, target: Some(target), .. } => {
                    let (passage, question) = context.split_once('\n').unwrap();
                    let (passage, target) = (words(passage), words(target));
                    assert!(passage.windows(target.len()).any(|w| w == target), "{context}");
                    assert!(question.ends_with('?'), "{context}");
                }
                other => panic!("{other:?}"),
            }
        }
        let is_choice = prepared.task.kind == Kind::Choice;
        assert!(!is_choice || places.iter().all(|n| *n > prepared.rows / 5), "{places:?}");
    }
}
