//! What users of llama.cpp and Fast-dLLM type: flags that mean the same here, and what to do instead
//! of others.

use std::ffi::OsString;

/// Flags of several letters behind one dash, which clap reads as several flags, and ours.
const SAME: [(&str, &str); 6] = [
    ("-hf", "--model"),
    ("-hfr", "--model"),
    ("-sys", "--system"),
    ("-no-cnv", "--raw"),
    ("-cnv", "--chat"),
    ("-st", "--chat"),
];

/// What to do instead of giving other flags.
const INSTEAD: [(&[&str], &str); 15] = [
    (
        &["-p", "--prompt"],
        "`llada run MODEL \"TEXT\"` answers one text; `llada chat` reads messages from the terminal, or \
         one from each line of stdin",
    ),
    (
        &["-m", "--model"],
        "it goes after the verb that needs a model: `llada run -m MODEL \"TEXT\"`",
    ),
    (
        &["-ngl", "--ngl", "--gpu-layers", "--n-gpu-layers", "-dev", "--device", "-mg", "-sm"],
        "leave it out: models are computed on the processor; `--threads` says on how many cores",
    ),
    (
        &["-c", "--ctx-size"],
        "leave it out: the longest sequence is the model's own (`llada show` names it), and \
         `--gen-length` says how much of it a response may take",
    ),
    (
        &["--min-p", "--typical", "--samplers", "--xtc-probability"],
        "leave it out: `--temperature`, `--top-k` and `--top-p` say which tokens are drawn",
    ),
    (
        &["--repeat-penalty", "--presence-penalty", "--frequency-penalty", "--repeat-last-n"],
        "leave it out: against loops, raise `--temperature`",
    ),
    (
        &["-f", "--file"],
        "pipe the file in, as in `llada run - < FILE`, or give one prompt on each line with \
         `--prompts FILE`",
    ),
    (
        &["-i", "--interactive", "--conversation", "--interactive-first"],
        "`llada chat` is the conversation",
    ),
    (&["--no-conversation"], "`--raw` continues a prompt as text"),
    (
        &["-fa", "--flash-attn", "--mlock", "--no-mmap", "--numa", "-ub", "--ubatch-size", "-b"],
        "leave it out: there is one way to compute, and weights are read from the mapped file",
    ),
    (&["-ctk", "-ctv", "--cache-type-k", "--cache-type-v"], "`--cache-type bf16` is for both"),
    (
        &["--threshold", "--factor", "--keep"],
        "transfer rules are values of `--transfer`: `--transfer threshold=0.9`, `--transfer factor=1`",
    ),
    (
        &["-j", "-jf", "--json-schema-file", "--grammar", "--grammar-file"],
        "`--json-schema FILE`, `--regex RE` and `--choices A,B` say what an answer must be",
    ),
    (
        &["--diffusion-eps", "--diffusion-add-gumbel-noise"],
        "leave it out: `--remasking` and `--temperature` say how tokens are chosen",
    ),
    (&["-e", "--escape", "--no-escape"], "give the text as it is: `$'a\\nb'` in most shells"),
];

/// The words of a command line with our flags in place of those that mean the same.
pub fn normalized(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut is_over = false;
    let normal = |word: OsString| {
        is_over |= word == "--";
        let same = SAME.iter().find(|(theirs, _)| !is_over && word == *theirs);
        same.map_or(word, |(_, ours)| ours.into())
    };
    words.into_iter().map(normal).collect()
}

/// A flag of llama.cpp among the words of a command line that could not be read, and what to do
/// instead. `unknown` is the flag that clap does not know; those of several letters behind one dash
/// it takes for others.
pub fn explained(words: &[String], unknown: Option<&str>) -> Option<(String, &'static str)> {
    let flags = words.iter().take_while(|word| *word != "--");
    flags.into_iter().find_map(|word| {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let is_long = name.starts_with('-') && !name.starts_with("--") && name.len() > 2;
        let (_, hint) = INSTEAD.iter().find(|(names, _)| names.contains(&name))?;
        (is_long || unknown == Some(name)).then(|| (name.to_owned(), *hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_two_dashes_is_text() {
        let words = |line: &str| normalized(line.split(' ').map(OsString::from));
        assert_eq!(
            words("llada run -hf a/b -sys x"),
            ["llada", "run", "--model", "a/b", "--system", "x"]
        );
        assert_eq!(words("llada run -- -hf"), ["llada", "run", "--", "-hf"]);
        let found = |line: &str, unknown| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            explained(&words, unknown).map(|(flag, _)| flag)
        };
        assert_eq!(found("llada run -- -ngl 9", None), None);
        assert_eq!(found("llada run -ngl 9 x", None).unwrap(), "-ngl");
        assert_eq!(found("llada -m x -p y", Some("-m")).unwrap(), "-m");
        assert_eq!(found("llada run -m x -ngl 9", None).unwrap(), "-ngl");
        assert_eq!(found("llada run --min-p=0.1 x", Some("--min-p")).unwrap(), "--min-p");
        assert_eq!(found("llada score --file", None), None);
        assert_eq!(found("llada run -c 9 x", Some("-c")).unwrap(), "-c");
    }
}
