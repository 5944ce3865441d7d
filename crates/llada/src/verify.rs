//! Whether files are as they were written, by the checksums that they carry or that others beside
//! them have: of a model, of a run with its checkpoints, of token shards.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    checkpoint::{gguf, safetensors},
    data,
    files::{self, Marks},
    io, train,
};

/// What a checksum says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// Every byte is as it was written.
    Intact,
    /// It is not, or it cannot be read.
    Damaged(String),
    /// There is no checksum of it.
    Unknown,
}

/// A file, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The file.
    pub path: PathBuf,
    /// What its checksum says.
    pub integrity: Integrity,
}

/// Reads every byte of a file, or of the files in a folder (of a run folder, in its checkpoints),
/// and compares it with its checksum.
///
/// # Errors
/// When there is no such file or folder, or the folder cannot be read.
pub fn verify(path: &Path) -> Result<Vec<Verified>> {
    if path.is_file() {
        return Ok(vec![Verified { path: path.to_path_buf(), integrity: own(path) }]);
    }
    let checkpoints = train::checkpoints(path)?;
    if checkpoints.is_empty() {
        return folder(path);
    }
    let files = checkpoints.iter().map(|path| checkpoint(path)).collect::<Result<Vec<_>>>()?;
    Ok(files.concat())
}

/// A checkpoint of a run, which without its state cannot be gone on from.
fn checkpoint(dir: &Path) -> Result<Vec<Verified>> {
    let mut files = folder(dir)?;
    let path = dir.join(train::STATE);
    if !path.exists() {
        files.push(Verified { path, integrity: Integrity::Damaged("it is missing".into()) });
    }
    Ok(files)
}

fn folder(dir: &Path) -> Result<Vec<Verified>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("read", dir))? {
        let entry = entry.map_err(io("read", dir))?;
        // Hidden files are those of other programs, or unfinished. A link to nothing was a file.
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_there = entry.path().is_file() || !entry.path().exists();
        if is_there && !name.starts_with('.') {
            names.push(name);
        }
    }
    // The files that list the checksums of others are sealed themselves.
    let mut marks = Marks::new();
    let mut found = BTreeMap::new();
    for (list, read) in [
        (train::STATE, train::marks as fn(&Path) -> std::result::Result<Marks, String>),
        (data::META, data::marks),
    ] {
        if names.iter().any(|name| name == list) {
            let read = read(&dir.join(list));
            let integrity = match &read {
                Ok(_) => Integrity::Intact,
                Err(reason) => Integrity::Damaged(reason.clone()),
            };
            found.insert(list.to_owned(), integrity);
            marks.extend(read.unwrap_or_default());
        }
    }
    for (name, crc32c) in &marks {
        found.insert(name.clone(), compare(&dir.join(name), *crc32c));
    }
    for name in names {
        found.entry(name.clone()).or_insert_with(|| own(&dir.join(name)));
    }
    let verified = |(name, integrity)| Verified { path: dir.join::<String>(name), integrity };
    Ok(found.into_iter().map(verified).collect())
}

/// By the checksum that a file carries itself.
fn own(path: &Path) -> Integrity {
    if !path.exists() {
        return Integrity::Damaged("the file that it links to is gone".into());
    }
    let is_tensors = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    let intact = match (is_tensors, gguf::is_gguf(path)) {
        (true, _) => safetensors::File::open(path).map(|file| file.is_intact()),
        (_, true) => gguf::File::open(path).map(|file| file.is_intact()),
        _ => return Integrity::Unknown,
    };
    match intact {
        Ok(Some(true)) => Integrity::Intact,
        Ok(Some(false)) => Integrity::Damaged("its checksum differs".into()),
        Ok(None) => Integrity::Unknown,
        Err(error) => Integrity::Damaged(error.to_string()),
    }
}

fn compare(path: &Path, crc32c: u32) -> Integrity {
    match files::sum(path) {
        Ok((_, found)) if found == crc32c => Integrity::Intact,
        Ok(_) => Integrity::Damaged("its checksum differs".into()),
        Err(error) => Integrity::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use llada_kernels::{Cpu, DType};

    use super::*;
    use crate::{
        checkpoint,
        model::Model,
        tokenizer::{Kind, TokenizerFiles, train as train_tokenizer},
        train::Recipe,
    };

    /// The names of the files and what is said of each: `=` intact, `!` damaged, `?` unknown.
    fn look(path: &Path) -> String {
        let one = |file: Verified| {
            let name = file.path.file_name().unwrap().to_str().unwrap().to_owned();
            let sign = match file.integrity {
                Integrity::Intact => "=",
                Integrity::Damaged(_) => "!",
                Integrity::Unknown => "?",
            };
            name + sign
        };
        verify(path).unwrap().into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_changed_byte_of_weights_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let none: [&str; 0] = [];
        let sizes = "[model]\nd_model = 32\nn_layers = 1\nn_heads = 2\nmlp_hidden_size = 32";
        let recipe = Recipe::parse(sizes, &none).unwrap();
        let tokenizer = train_tokenizer(Kind::Character { min_count: 0 }, [Ok("abc")]).unwrap();
        let config = recipe.model_config(tokenizer.vocab_size(), tokenizer.special_tokens());
        let model = Model::init(config.unwrap(), 1).unwrap();
        let (folder, file) = (dir.path().join("model"), dir.path().join("model.gguf"));
        checkpoint::save(&model, &folder, DType::F32).unwrap();
        tokenizer.save_dir(&folder).unwrap();
        let carried = TokenizerFiles::read(&folder).unwrap();
        let formats = gguf::Formats::all(DType::F32);
        gguf::save(&model, &carried, &file, &formats, &Cpu::new(1).unwrap()).unwrap();
        assert_eq!(
            look(&folder),
            "config.json? model.safetensors= tokenizer.json? tokenizer_config.json?"
        );
        assert_eq!(look(&file), "model.gguf=");
        checkpoint::load(&file).unwrap();
        for path in [folder.join("model.safetensors"), file] {
            let good = fs::read(&path).unwrap();
            for at in (0..good.len()).step_by(good.len() / 61) {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                fs::write(&path, bad).unwrap();
                assert!(look(&path).ends_with('!'), "byte {at} of {}", path.display());
            }
            fs::write(&path, &good[..good.len() - 1]).unwrap();
            assert!(look(&path).ends_with('!'));
            fs::write(&path, good).unwrap();
            assert!(look(&path).ends_with('='));
        }
        assert!(verify(&dir.path().join("none")).is_err());
    }
}
