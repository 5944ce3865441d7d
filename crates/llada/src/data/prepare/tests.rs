use llada_kernels::Cpu;

use super::*;
use crate::{
    Error,
    data::{Shards, Windows},
    tokenizer::{Kind, train as train_tokenizer},
};

const TEXT: &str = "the quick brown fox\njumps over the lazy dog 0123456789\n";

struct Place {
    dir: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Place {
    fn new() -> Self {
        let tokenizer =
            train_tokenizer(Kind::Character { min_count: 0 }, [Ok(TEXT.to_owned())]).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), tokenizer }
    }

    fn input(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("shards")
    }

    fn open(&self) -> Result<Shards> {
        Shards::open(&self.output(), &Cpu::new(2).unwrap())
    }

    fn prepare(&self, inputs: &[PathBuf], options: &PrepareOptions) -> Result<Meta> {
        prepare(inputs, &self.output(), &self.tokenizer, options, &mut |_| {})
    }

    /// The documents of a split, as text, with what ends each written out.
    fn text(&self, split: &crate::data::Split) -> String {
        let mut ids = Vec::new();
        split.read(0, split.tokens() as usize, &mut ids).unwrap();
        self.tokenizer.decode(&ids, false).unwrap()
    }
}

fn numbered(n: usize) -> String {
    (0..n).map(|i| format!("fox {i}<|endoftext|>\n")).collect()
}

#[test]
fn documents_come_back_and_duplicates_do_not() {
    let place = Place::new();
    let text = place.input("a.txt", &numbered(40));
    let rows = "{\"text\":\"fox  3\\n\"}\n{\"text\":\"lazy\"}\n{\"txt\":1}\n";
    let rows = place.input("b.jsonl", rows);
    let options = PrepareOptions { shard_tokens: 37, ..PrepareOptions::default() };
    let meta = place.prepare(&[text, rows], &options).unwrap();
    assert_eq!((meta.duplicates, meta.rejected), (1, 1));
    assert!(meta.first_rejected[0].ends_with("b.jsonl:3: no field `text`"), "{meta:?}");
    assert_eq!(meta.train.documents + meta.validation.documents, 41);
    assert!(meta.validation.documents >= 1 && meta.train.shards.len() > 1);

    let shards = place.open().unwrap();
    assert_eq!(*shards.meta(), Meta { options: shards.meta().options.clone(), ..meta });
    let (train, held_out) = (place.text(shards.train()), place.text(shards.validation()));
    let mut documents: Vec<&str> = train
        .split_terminator("<|endoftext|>")
        .chain(held_out.split_terminator("<|endoftext|>"))
        .collect();
    documents.sort_unstable();
    let mut expected: Vec<String> = (0..40).map(|i| format!("fox {i}")).collect();
    expected.push("lazy".into());
    expected.sort_unstable();
    assert_eq!(documents, expected);
    assert!(place.output().join("tokenizer.json").exists());
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn the_split_does_not_depend_on_the_order_of_the_inputs() {
    let place = Place::new();
    let (a, b) = (place.input("a.txt", &numbered(60)), place.input("b.txt", "dog<|endoftext|>cat"));
    let mut options =
        PrepareOptions { validation: 0.2, overwrite: true, ..PrepareOptions::default() };
    let held_out = |inputs: &[PathBuf], options: &PrepareOptions| {
        place.prepare(inputs, options).unwrap();
        let text = place.text(place.open().unwrap().validation());
        let mut documents: Vec<String> = text.split("<|endoftext|>").map(str::to_owned).collect();
        documents.sort_unstable();
        documents
    };
    let forward = held_out(&[a.clone(), b.clone()], &options);
    assert!((5..25).contains(&forward.len()), "{}", forward.len());
    assert_eq!(forward, held_out(&[b.clone(), a.clone()], &options));
    options.seed = 1;
    assert_ne!(forward, held_out(&[a, b], &options));
}

#[test]
fn of_one_document_the_tail_is_held_out() {
    let place = Place::new();
    let input = place.input("a.txt", TEXT);
    let options = PrepareOptions { validation: 0.25, ..PrepareOptions::default() };
    let meta = place.prepare(&[input], &options).unwrap();
    assert!(meta.tail_held_out);
    let shards = place.open().unwrap();
    let whole = place.text(shards.train()) + &place.text(shards.validation());
    assert_eq!(whole, format!("{}<|endoftext|>", TEXT.trim_end()));
    assert_eq!(meta.train.bytes + meta.validation.bytes, TEXT.trim_end().len() as u64);
    assert_eq!(meta.validation.tokens, (meta.train.tokens + meta.validation.tokens).div_ceil(4));
}

#[test]
fn a_text_that_spells_a_special_token_does_not_give_one() {
    let place = Place::new();
    let input = place.input("a.jsonl", "{\"text\":\"the <|mdm_mask|> fox\"}\n{\"text\":\"dog\"}\n");
    place.prepare(&[input], &PrepareOptions::default()).unwrap();
    let shards = place.open().unwrap();
    let mask = place.tokenizer.special_tokens().mask.unwrap();
    for split in [shards.train(), shards.validation()] {
        let mut ids = Vec::new();
        split.read(0, split.tokens() as usize, &mut ids).unwrap();
        assert!(!ids.contains(&mask));
    }
}

#[test]
fn what_cannot_be_prepared_is_refused() {
    let place = Place::new();
    let options = PrepareOptions::default();
    let empty = place.input("empty.txt", " \n");
    let error = place.prepare(&[empty], &options).unwrap_err();
    assert!(error.to_string().starts_with("no document"), "{error}");
    let xz = place.input("a.txt.xz", "x");
    let error = place.prepare(&[xz], &options).unwrap_err();
    assert!(error.hint().unwrap().contains("decompress"));
    assert!(place.prepare(&[place.dir.path().join("none.txt")], &options).is_err());
    let input = place.input("a.txt", TEXT);
    let bad = PrepareOptions { validation: 1.0, ..options.clone() };
    assert!(place.prepare(std::slice::from_ref(&input), &bad).is_err());
    place.prepare(std::slice::from_ref(&input), &options).unwrap();
    let error = place.prepare(std::slice::from_ref(&input), &options).unwrap_err();
    assert!(matches!(error, Error::Data(DataError::Exists { .. })));
    let left = std::fs::read_dir(place.dir.path()).unwrap().count();
    assert_eq!(left, 4, "the inputs and the shards");
}

#[test]
fn overwriting_keeps_what_is_not_ours_and_the_old_shards_on_failure() {
    let place = Place::new();
    let input = place.input("a.txt", &numbered(50));
    let neighbours = ["shards.old", "shards.tmp", "shards.lock", "shards.bak"];
    for name in neighbours {
        std::fs::create_dir(place.dir.path().join(name)).unwrap();
        place.input(&format!("{name}/thesis"), name);
    }
    let options =
        PrepareOptions { overwrite: true, shard_tokens: 200, ..PrepareOptions::default() };
    place.prepare(std::slice::from_ref(&input), &options).unwrap();
    place.input("shards/notes.txt", "mine");
    let names = || {
        let entries = std::fs::read_dir(place.output()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // In the second reading there are fewer documents than in the first.
    let changed = |at: PrepareProgress| {
        if at.tokens > 0 {
            std::fs::write(&input, "fox<|endoftext|>dog<|endoftext|>").unwrap();
        }
    };
    let big = place.input("b.txt", &numbered(2000));
    let mut inputs = vec![big, input.clone()];
    let result = prepare(&inputs, &place.output(), &place.tokenizer, &options, &mut { changed });
    assert!(matches!(result.unwrap_err(), Error::Data(DataError::Changed)));
    assert_eq!(names(), before);
    place.open().unwrap();

    // Fewer shards than before: none of the old ones stays.
    inputs.truncate(1);
    let options = PrepareOptions { shard_tokens: 1 << 20, ..options };
    place.prepare(&inputs, &options).unwrap();
    let expected =
        ["meta.json", "notes.txt", "tokenizer.json", "tokenizer_config.json", "train-00000.bin"];
    assert_eq!(names()[..5], expected.map(std::ffi::OsString::from));
    assert_eq!(names().len(), 6);
    place.open().unwrap();
    assert_eq!(std::fs::read(place.output().join("notes.txt")).unwrap(), b"mine");
    for name in neighbours {
        let thesis = place.dir.path().join(name).join("thesis");
        assert_eq!(std::fs::read_to_string(thesis).unwrap(), name);
    }
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 3 + neighbours.len());
}

#[test]
fn a_folder_has_one_writer() {
    let place = Place::new();
    let input = place.input("a.txt", TEXT);
    let held = Output::lock(&place.output()).unwrap();
    let error = place.prepare(std::slice::from_ref(&input), &PrepareOptions::default());
    let error = error.unwrap_err();
    assert!(error.to_string().contains("shards` is being written"), "{error}");
    drop(held);
    place.prepare(&[input], &PrepareOptions::default()).unwrap();
}

#[test]
fn damaged_shards_are_named() {
    let place = Place::new();
    let input = place.input("a.txt", &numbered(50));
    let options = PrepareOptions { shard_tokens: 100, ..PrepareOptions::default() };
    let meta = place.prepare(&[input], &options).unwrap();
    let file = |name: &str| place.output().join(name);
    let refuse = |name: &str, content: &[u8]| {
        let good = std::fs::read(file(name)).unwrap();
        std::fs::write(file(name), content).unwrap();
        let error = place.open().unwrap_err();
        std::fs::write(file(name), good).unwrap();
        assert!(error.hint().is_some() && error.to_string().contains(name), "{error}");
        error.to_string()
    };
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    // One changed bit anywhere, of any shard and of the tokenizer.
    assert!(meta.train.shards.len() > 1);
    let shards = meta.train.shards.iter().chain(&meta.validation.shards).map(|s| s.file.as_str());
    let tokenizer = meta.tokenizer.iter().map(|file| file.file.as_str());
    for name in shards.chain(tokenizer) {
        let good = read(name);
        for at in (0..good.len()).step_by(good.len() / 7 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(refuse(name, &bad).contains("checksum differs"));
        }
    }
    let shard = read("train-00000.bin");
    assert!(refuse("train-00000.bin", &shard[..shard.len() - 1]).contains("bytes, it was"));
    std::fs::remove_file(file("tokenizer_config.json")).unwrap();
    assert!(place.open().unwrap_err().to_string().contains("is not there"));
}

#[test]
fn ids_and_files_that_do_not_fit_are_found_under_right_checksums() {
    let place = Place::new();
    let input = place.input("a.txt", &numbered(50));
    let meta = place.prepare(&[input], &PrepareOptions::default()).unwrap();
    let (shard, description) =
        (place.output().join("train-00000.bin"), place.output().join("meta.json"));
    let mut bytes = std::fs::read(&shard).unwrap();
    let refuse = |change: &dyn Fn(&mut Meta)| {
        let mut meta = meta.clone();
        change(&mut meta);
        std::fs::write(&description, meta.to_text()).unwrap();
        place.open().unwrap_err().to_string()
    };
    assert!(refuse(&|m| m.dtype = IdType::U32).contains("U32 ids do not fit"));
    assert!(refuse(&|m| m.train.shards[0].file = "../train.bin".into()).contains("leaves"));
    assert!(refuse(&|m| m.train.shards[0].tokens = u64::MAX).contains("it was written with"));
    assert!(refuse(&|m| m.train.tokens += 1).contains("its shards hold"));
    let vocab = meta.vocab_size as u16;
    assert!(refuse(&|m| m.vocab_size += 1).contains(&format!("are of {}", vocab + 1)));

    let last = bytes.len() - 2;
    bytes[last..].copy_from_slice(&vocab.to_le_bytes());
    std::fs::write(&shard, &bytes).unwrap();
    let error = refuse(&|m| m.train.shards[0].crc32c = crc32c::crc32c(&bytes));
    let expected = format!("id {vocab} at token {} is outside the vocabulary", last / 2);
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn windows_reach_over_shards_and_not_past_the_end() {
    let place = Place::new();
    let input = place.input("a.txt", &numbered(50));
    let options = PrepareOptions { shard_tokens: 11, ..PrepareOptions::default() };
    place.prepare(&[input], &options).unwrap();
    let shards = place.open().unwrap();
    let windows = Windows::new(shards.train(), 8, 3).unwrap();
    let mut all = Vec::new();
    shards.train().read(0, shards.train().tokens() as usize, &mut all).unwrap();
    let mut sequences = Vec::new();
    windows.sequences(0..windows.count(), 8, &mut sequences).unwrap();
    let mut cuts: Vec<&[u32]> = sequences.chunks(8).collect();
    let mut expected: Vec<&[u32]> = all.chunks_exact(8).collect();
    assert_ne!(cuts, expected, "the order is drawn");
    cuts.sort_unstable();
    expected.sort_unstable();
    assert_eq!(cuts, expected);
    let end = shards.train().tokens();
    assert!(shards.train().read(end - 3, 4, &mut Vec::new()).is_err());
    assert!(shards.train().read(u64::MAX, 1, &mut Vec::new()).is_err());
    assert!(Windows::new(shards.validation(), 1000, 0).is_err());
    assert!(Windows::new(shards.train(), 0, 0).is_err());
}

#[test]
fn long_texts_are_cut_where_tokenizers_cut() {
    let text: String =
        (0..90_000).map(|i| format!("line {i}\n{}", ["", "\n", "  "][i % 3])).collect();
    let parts: Vec<&str> = pieces(&text).collect();
    assert!(parts.len() > 1);
    assert_eq!(parts.concat(), text);
    assert!(parts[1..].iter().all(|p| p.starts_with("line")));
    assert_eq!(pieces("").count(), 0);
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_column_is_read() {
    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::writer::SerializedFileWriter,
        schema::parser::parse_message_type,
    };
    let place = Place::new();
    let path = place.dir.path().join("a.parquet");
    let message = "message rows { required int32 id; optional binary text (UTF8); }";
    let schema = std::sync::Arc::new(parse_message_type(message).unwrap());
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut ids = group.next_column().unwrap().unwrap();
    ids.typed::<parquet::data_type::Int32Type>().write_batch(&[1, 2, 3], None, None).unwrap();
    ids.close().unwrap();
    let mut texts = group.next_column().unwrap().unwrap();
    let values = ["fox", "dog"].map(ByteArray::from);
    texts.typed::<ByteArrayType>().write_batch(&values, Some(&[1, 0, 1]), None).unwrap();
    texts.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let meta = place.prepare(std::slice::from_ref(&path), &PrepareOptions::default()).unwrap();
    assert_eq!((meta.train.documents, meta.validation.documents, meta.rejected), (1, 1, 1));
    assert!(meta.first_rejected[0].contains("a.parquet:2"), "{meta:?}");
    let options =
        PrepareOptions { field: "body".into(), overwrite: true, ..PrepareOptions::default() };
    let refuse = || {
        let error = place.prepare(std::slice::from_ref(&path), &options).unwrap_err();
        (error.to_string(), error.hint().unwrap())
    };
    let (error, hint) = refuse();
    assert!(error.contains("no column `body`") && error.contains("text"), "{error}");
    assert!(hint.contains("--field"), "{hint}");
    std::fs::write(&path, b"PAR1 not really PAR1").unwrap();
    let (error, hint) = refuse();
    assert!(error.contains("a.parquet") && hint.contains("damaged"), "{error} {hint}");
}
