use std::collections::HashMap;

use ::safetensors::{Dtype, SafeTensors, tensor::TensorView};
use half::{bf16, f16};

use super::*;
use crate::Error;

/// A file of a given header and data.
fn bytes(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn open(content: &[u8]) -> Result<File> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.safetensors");
    std::fs::write(&path, content).unwrap();
    File::open(&path)
}

fn refusal(content: &[u8]) -> String {
    open(content).unwrap_err().to_string()
}

fn write_one(values: WeightView<'_>, dtype: DType) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.safetensors");
    let shape = vec![values.len()];
    write(&path, &[Source { name: "w", shape, parts: vec![values], dtype }], &BTreeMap::new())?;
    Ok(std::fs::read(&path).unwrap())
}

fn source<'a>(
    name: &'a str,
    shape: &[usize],
    parts: Vec<WeightView<'a>>,
    dtype: DType,
) -> Source<'a> {
    Source { name, shape: shape.to_vec(), parts, dtype }
}

#[test]
fn the_official_crate_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let halves = [bf16::from_f32(0.5); 3];
    let tensors = [
        // An odd number of 16-bit numbers before 32-bit ones would put these out of line.
        source("a", &[3], vec![WeightView::Bf16(&halves)], DType::Bf16),
        // Several parts are one tensor.
        source("b", &[1, 2], vec![WeightView::F32(&[1.0]), WeightView::F32(&[-2.0])], DType::F32),
        source("empty", &[0, 7], vec![WeightView::F32(&[])], DType::F16),
        source("scalar", &[], vec![WeightView::F32(&[3.0])], DType::F32),
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write(&path, &tensors, &metadata).unwrap();
    let content = std::fs::read(&path).unwrap();
    let official = SafeTensors::deserialize(&content).unwrap();
    let b = official.tensor("b").unwrap();
    assert_eq!((b.dtype(), b.shape()), (Dtype::F32, &[1, 2][..]));
    assert_eq!(b.data(), bytemuck::cast_slice::<f32, u8>(&[1.0, -2.0]));
    assert_eq!(official.tensor("a").unwrap().dtype(), Dtype::BF16);
    let (_, header) = SafeTensors::read_metadata(&content).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");

    let file = File::open(&path).unwrap();
    assert_eq!((file.metadata()["format"].as_str(), file.is_intact()), ("pt", Some(true)));
    assert_eq!(file.tensor("b", &[1, 2]).unwrap().to_f32(), [1.0, -2.0]);
    assert_eq!(file.tensor("scalar", &[]).unwrap().to_f32(), [3.0]);
    assert!(file.tensor("empty", &[0, 7]).unwrap().view().is_empty());
    for (name, shape) in [("a", &[3][..]), ("b", &[1, 2]), ("scalar", &[])] {
        let tensor = file.tensor(name, shape).unwrap();
        assert!(matches!(tensor, Tensor::Mapped { .. }), "`{name}` was copied");
    }
}

#[test]
fn what_the_official_crate_writes_is_read() {
    let (floats, ints) = ([1.5f32, -2.5, 0.0, 9.0], [1i64, 2]);
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("weights", view(Dtype::F32, &[2, 2], bytemuck::cast_slice(&floats))),
        ("ids", view(Dtype::I64, &[2], bytemuck::cast_slice(&ints))),
    ];
    let metadata = HashMap::from([("é\n\"".to_owned(), "\u{1f600}".to_owned())]);
    let content = ::safetensors::serialize(tensors, Some(metadata)).unwrap();
    let file = open(&content).unwrap();
    assert_eq!(file.metadata()["é\n\""], "\u{1f600}");
    assert_eq!(file.entries()["ids"].dtype, "I64");
    assert_eq!(file.tensor("weights", &[2, 2]).unwrap().to_f32(), floats);
    let error = file.tensor("ids", &[2]).unwrap_err().to_string();
    assert!(error.contains("`ids`") && error.contains("I64"), "{error}");
}

#[test]
fn damaged_headers_are_refused() {
    let cases: [(&[u8], &str); 5] = [
        (b"", "only 0 bytes"),
        (b"1234567", "only 7 bytes"),
        (&u64::MAX.to_le_bytes(), "header should have 18446744073709551615"),
        (&100_000_001u64.to_le_bytes(), "header should have 100000001"),
        (b"\x03\0\0\0\0\0\0\0{}", "header should have 3 bytes"),
    ];
    for (content, expected) in cases {
        let error = refusal(content);
        assert!(error.contains(expected) && error.contains("some.safetensors"), "{error}");
    }
    let deep = format!(r#"{{"w":{}"#, "[".repeat(200_000));
    for header in ["", "{", "[]", "null", "3", r#"{"w":1}"#, r#"{"w":{}}"#, &deep, "{\"\0\":1}"] {
        let error = refusal(&bytes(header, b""));
        assert!(error.contains("its header"), "{header:.20}: {error}");
    }
    assert!(refusal(b"\x01\0\0\0\0\0\0\0\xff").contains("its header"));
}

#[test]
fn a_wrong_entry_is_refused_by_name() {
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let cases = [
        // (entries, bytes of data, the message)
        (vec![entry("w", "[2]", 0, 8)], 7, "`w`", "data, but they are only 7"),
        (vec![entry("w", "[2]", 8, 0)], 8, "`w`", "before it starts"),
        (vec![entry("w", "[2]", 0, u64::MAX)], 8, "`w`", "ends at byte"),
        (vec![entry("w", "[3]", 0, 8)], 8, "`w`", "needs 12"),
        (vec![entry("w", "[2]", 0, 4)], 8, "`w`", "needs 8"),
        (vec![entry("w", "[4294967296,4294967296]", 0, 0)], 0, "`w`", "too large"),
        (vec![entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12)], 12, "`b`", "overlaps"),
        (vec![entry("a", "[1]", 0, 4), entry("b", "[1]", 0, 4)], 8, "`b`", "overlaps"),
        (vec![entry("a", "[1]", 0, 4), entry("b", "[1]", 8, 12)], 12, "`b`", "gap"),
        (vec![entry("w", "[1]", 4, 8)], 8, "`w`", "gap"),
        (vec![entry("w", "[1]", 0, 4), entry("w", "[1]", 4, 8)], 8, "`w`", "twice"),
        (vec![entry("w", "[0]", 0, 0), entry("w", "[0]", 0, 0)], 0, "`w`", "twice"),
        (vec![entry("w", "[-1]", 0, 4)], 4, "`w`", "invalid value"),
        (vec![entry("w", "[1e3]", 0, 4)], 4, "`w`", "invalid type"),
        (vec![entry("w", "[1]", 0, 4)], 5, "some.safetensors", "1 bytes after the last"),
    ];
    for (entries, size, name, what) in cases {
        let error = refusal(&bytes(&format!("{{{}}}", entries.join(",")), &vec![0; size]));
        let complete =
            error.contains(name) && error.contains(what) && error.contains("some.safetensors");
        assert!(complete, "{entries:?}: {error}");
    }
}

#[test]
fn tensors_must_be_as_the_model_needs_them() {
    let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                     "q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[8,10]},
                     "x":{"dtype":"Q9","shape":[2],"data_offsets":[10,11]}}"#;
    let file = open(&bytes(header, &[0; 11])).unwrap();
    let error = |name, shape: &[usize]| file.tensor(name, shape).unwrap_err();
    assert!(matches!(
        error("w", &[1, 2]),
        Error::Checkpoint(CheckpointError::Shape { found, .. }) if found == [2]
    ));
    assert!(matches!(error("no", &[2]), Error::Checkpoint(CheckpointError::Missing { .. })));
    for name in ["q", "x"] {
        assert!(matches!(error(name, &[2]), Error::Checkpoint(CheckpointError::DType { .. })));
    }
}

#[test]
fn unaligned_weights_are_copied_and_right() {
    for pad in 0..4 {
        let header = format!(
            r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}{}"#,
            " ".repeat(pad)
        );
        let data: Vec<u8> = [1.25f32, -8.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = open(&bytes(&header, &data)).unwrap();
        assert_eq!(file.tensor("w", &[2]).unwrap().to_f32(), [1.25, -8.0], "pad {pad}");
    }
}

#[test]
fn a_number_that_is_not_finite_is_an_error() {
    let mut file = write_one(WeightView::F32(&[1.0, 2.0]), DType::F32).unwrap();
    let last = file.len() - 4;
    file[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = open(&file).unwrap().tensor("w", &[2]).unwrap_err();
    assert!(matches!(
        &error,
        Error::Checkpoint(CheckpointError::NonFinite { tensor, index: 1, .. }) if tensor == "w"
    ));
}

#[test]
fn narrowing_rounds_to_nearest_even() {
    let read = |values: &[f32], dtype| {
        let file = open(&write_one(WeightView::F32(values), dtype).unwrap()).unwrap();
        file.tensor("w", &[values.len()]).unwrap().to_f32()
    };
    let eps = f32::EPSILON;
    // One bf16 step above 1 is 2⁻⁷: ties go to the even neighbour, all else to the nearest.
    let step = 0.0078125;
    let values = [1.0 + step / 2.0, 1.0 + 1.5 * step, 1.0 + step / 2.0 + eps, -1.0 - step / 2.0];
    assert_eq!(read(&values, DType::Bf16), [1.0, 1.0 + 2.0 * step, 1.0 + step, -1.0]);
    let step = 0.0009765625;
    let values = [1.0 + step / 2.0, 1.0 + 1.5 * step, 1.0 + step / 2.0 + eps, 6e-8];
    assert_eq!(read(&values, DType::F16), [1.0, 1.0 + 2.0 * step, 1.0 + step, 5.9604645e-8]);
    let brain = [bf16::from_f32(0.1), bf16::from_f32(-3.0)];
    let wide = open(&write_one(WeightView::Bf16(&brain), DType::F32).unwrap()).unwrap();
    assert_eq!(wide.tensor("w", &[2]).unwrap().to_f32(), brain.map(bf16::to_f32));
}

#[test]
fn a_number_too_large_for_its_type_is_not_written() {
    let mut values = vec![0.5f32; CHUNK + 10];
    values[CHUNK + 7] = 70_000.0;
    let error = write_one(WeightView::F32(&values), DType::F16).unwrap_err();
    assert!(matches!(
        &error,
        Error::Checkpoint(CheckpointError::NonFinite { index, .. }) if *index == CHUNK + 7
    ));
    assert!(write_one(WeightView::F32(&values), DType::Bf16).is_ok());
    assert!(write_one(WeightView::F32(&[f32::NAN]), DType::F32).is_err());
}

#[test]
fn blocks_are_widened_and_there_is_no_file_of_them() {
    let cpu = llada_kernels::Cpu::new(1).unwrap();
    let format = llada_kernels::BlockFormat::Q8_0;
    let weights: Vec<f32> = (0..CHUNK + 64).map(|i| (i % 100) as f32).collect();
    let mut bytes = vec![0; format.bytes(weights.len()).unwrap()];
    format.quantize(&cpu, &weights, &mut bytes).unwrap();
    let view = WeightView::Blocks { format, bytes: &bytes };
    let mut wide = vec![0.0; weights.len()];
    view.widen(&mut wide);
    let file = open(&write_one(view, DType::F32).unwrap()).unwrap();
    assert!(file.tensor("w", &[wide.len()]).unwrap().to_f32() == wide);
    let error = write_one(WeightView::F32(&weights), DType::Blocks(format)).unwrap_err();
    assert!(error.to_string().contains("Q8_0"), "{error}");

    bytes[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let view = WeightView::Blocks { format, bytes: &bytes };
    assert_eq!(numbers::first_non_finite(view), Some(32));
    assert!(write_one(view, DType::F32).is_err());
}

#[test]
fn sources_must_fit_together() {
    let two =
        |name, shape: &[usize]| source(name, shape, vec![WeightView::F32(&[1.0, 2.0])], DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let fails = |tensors: &[Source<'_>]| write(&path, tensors, &BTreeMap::new()).is_err();
    assert!(fails(&[two("w", &[3])]));
    assert!(fails(&[two("w", &[2]), two("w", &[2])]));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
