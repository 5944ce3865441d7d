//! Connections that break, answers that are wrong, pulls that are killed.

use super::*;

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let bench = Bench::new();
    let blob = format!("/blob/{}", sha256(&bench.weights));
    for _ in 0..2 {
        bench.hub.fail(&blob, Fault::Break(1000));
    }
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    bench.assert_whole();
    let sent = bench.hub.store_requests();
    let ranges: Vec<Option<&str>> = sent.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-"), Some("bytes=2000-")]);
}

#[test]
fn what_an_earlier_run_left_is_gone_on_with() {
    let bench = Bench::new();
    fs::create_dir_all(bench.repo().join("blobs")).unwrap();
    fs::write(bench.partial(), &bench.weights[..777]).unwrap();
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    bench.assert_whole();
    assert_eq!(bench.hub.store_requests()[0].header("range"), Some("bytes=777-"));

    // A store that knows no ranges sends everything, and a beginning that is wrong is found out.
    for left in [b"wrong".to_vec(), vec![0; bench.weights.len() + 9], bench.weights.clone()] {
        fs::remove_dir_all(bench.repo()).unwrap();
        fs::create_dir_all(bench.repo().join("blobs")).unwrap();
        fs::write(bench.partial(), left).unwrap();
        bench.hub.fail(&sha256(&bench.weights), Fault::NoRange);
        let (code, _, stderr) = bench.run("pull org/tiny");
        assert_eq!(code, 0, "{stderr}");
        bench.assert_whole();
        bench.hub.with(|state| state.faults.clear());
    }
}

#[test]
fn wrong_bytes_are_not_kept() {
    let bench = Bench::new();
    let blob = sha256(&bench.weights);
    bench.hub.fail(&blob, Fault::WrongBytes);
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("model.safetensors: wrong checksum, once more"), "{stderr}");
    bench.assert_whole();

    fs::remove_dir_all(bench.repo()).unwrap();
    (0..2).for_each(|_| bench.hub.fail(&blob, Fault::WrongBytes));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("`model.safetensors` arrived twice with a wrong checksum"), "{stderr}");
    assert!(!bench.blob().exists());
    assert!(bench.partial().metadata().map_or(0, |data| data.len()) == 0);
    let stderr = bench.refused("run -m org/tiny x");
    assert!(stderr.contains("`org/tiny` is not on this machine"), "{stderr}");

    // A small file is checked like a large one. The first of these is for what is said of it.
    fs::remove_dir_all(bench.repo()).unwrap();
    (0..3).for_each(|_| bench.hub.fail("/tokenizer.json", Fault::WrongBytes));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("`tokenizer.json` arrived twice"), "{stderr}");
    bench.hub.fail("/config.json", Fault::Status(200, "ETag: \"x\"\r\n"));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("does not say what `config.json`"), "{stderr}");
}

#[test]
fn more_than_was_promised_is_not_taken() {
    let bench = Bench::new();
    bench.hub.fail(&sha256(&bench.weights), Fault::TooMuch);
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("sends more of `model.safetensors`"), "{stderr}");
    assert!(bench.partial().metadata().unwrap().len() == 0);

    bench.hub.with(|state| state.size = Some(1 << 60));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("are to be fetched, and"), "{stderr}");
    assert!(stderr.contains("HF_HOME"), "{stderr}");
}

#[test]
fn a_busy_hub_is_asked_again_and_not_for_ever() {
    let bench = Bench::new();
    for path in ["/revision/main", "/config.json", "/model.safetensors"] {
        bench.hub.fail(path, Fault::Status(429, "Retry-After: 0\r\n"));
        bench.hub.fail(path, Fault::Status(503, "Retry-After: 0\r\n"));
    }
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("answers 429 (too many requests); trying again\n"), "{stderr}");
    bench.assert_whole();
    bench.hub.with(|state| state.requests.clear());
    (0..9).for_each(|_| bench.hub.fail("/revision/main", Fault::Status(429, "Retry-After: 0\r\n")));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("the hub answers 429 (too many requests)"), "{stderr}");
    assert_eq!(bench.hub.with(|state| state.requests.len()), 5);
    bench.hub.with(|state| state.faults.clear());
    bench.hub.fail("/revision/main", Fault::Status(429, "Retry-After: 3600\r\n"));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("asks to wait 60 minutes"), "{stderr}");
}

#[test]
#[cfg(unix)]
fn an_interrupted_pull_keeps_what_it_has() {
    let bench = Bench::new();
    bench.hub.fail(&sha256(&bench.weights), Fault::Trickle(1000));
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("llada"));
    command.args(["pull", "org/tiny"]).env("HF_ENDPOINT", &bench.hub.endpoint);
    command.env("HF_HOME", bench.dir.path()).env_remove("HF_HUB_CACHE");
    let mut pull = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let length = || bench.partial().metadata().map_or(0, |data| data.len());
    while length() < 1000 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &pull.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(pull.wait().unwrap().code(), Some(130));
    assert!(length() >= 1000);
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    bench.assert_whole();
    let range = bench.hub.store_requests().last().unwrap().header("range").map(str::to_owned);
    assert!(range.unwrap().starts_with("bytes=1"));
}
