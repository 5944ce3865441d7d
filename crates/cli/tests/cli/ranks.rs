//! Works that many processes share.

use std::fs;

use serde_json::Value;

#[cfg(not(feature = "mpi"))]
use crate::{llada, outcome};
use crate::{run, trained};

#[test]
#[cfg(not(feature = "mpi"))]
fn ranks_that_cannot_talk_do_not_train_one_run_each() {
    for (rank, world) in [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("RANK", "WORLD_SIZE")]
    {
        let start = |number: &str, count: &str| {
            let args = ["train", "recipe.toml", "--out", "ranks"];
            let mut command = llada(trained(), &args);
            outcome(command.env(rank, number).env(world, count).output().unwrap())
        };
        let (code, stdout, stderr) = start("0", "2");
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("has started 2 ranks, but this build has no MPI"), "{stderr}");
        assert!(stderr.contains("the cargo feature `mpi`"), "{stderr}");
        // The first has told why.
        assert_eq!(start("1", "2"), (1, String::new(), String::new()));
        let (code, _, stderr) = start("two", "2");
        assert!(code == 1 && stderr.contains(&format!("`{rank}` is `two`")), "{stderr}");
        assert!(!trained().join("ranks").exists());
    }
}

#[test]
fn the_memory_of_ranks_is_known_before_they_start() {
    let total = |ranks: &str| {
        let args = ["show", "--train", "recipe.toml", "--ranks", ranks, "--json"];
        let (code, stdout, stderr) = run(trained(), &args);
        assert_eq!(code, 0, "{stderr}");
        let facts: Value = serde_json::from_str(&stdout).unwrap();
        let part = |name: &str| facts["memory"][name].as_f64().unwrap();
        assert_eq!(part("weights"), part("gradients"));
        (part("optimizer"), facts["total"].as_f64().unwrap())
    };
    let (one, two) = (total("1"), total("2"));
    assert!(one.0 == 2.0 * two.0 && one.1 > two.1, "{one:?} {two:?}");
    let (code, stdout, _) = run(trained(), &["show", "--train", "recipe.toml", "--ranks", "4"]);
    assert!(code == 0 && stdout.contains("memory of each of 4 ranks"), "{stdout}");
    let both = run(trained(), &["show", "run", "--train", "recipe.toml"]);
    assert!(both.0 == 2 && both.2.contains("a recipe and a model"), "{}", both.2);
}

#[test]
fn the_shards_of_a_file_give_what_the_file_gives() {
    let dir = trained();
    let row = |i: usize| format!("{{\"prompt\": \"the cat\", \"answer\": \" {i} sat\"}}\n");
    fs::write(dir.join("shards.jsonl"), (0..5).map(row).collect::<String>()).unwrap();
    let score = |more: &[&str]| {
        let args =
            ["score", "-m", crate::MODEL, "--file", "shards.jsonl", "--json", "--mc-num", "4"];
        let (code, stdout, stderr) = run(dir, &[&args, more].concat());
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    let whole = score(&[]);
    assert_eq!(whole.lines().count(), 5);
    for parts in [2, 3, 7] {
        let part = |number: usize| score(&["--shard", &format!("{number}/{parts}")]);
        assert_eq!((1..=parts).map(part).collect::<String>(), whole, "{parts}");
    }
    let (code, _, stderr) = run(dir, &["score", "--file", "shards.jsonl", "--shard", "3/2"]);
    assert!(code == 2 && stderr.contains("expected I/N"), "{stderr}");
}
