//! A small hub on this machine: the protocol of the real one, and its failures on demand.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// Whether it came to the store of large files.
    pub at_store: bool,
}

impl Request {
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers.get(key).map(String::as_str)
    }
}

/// What goes wrong with the next requests for a path.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Break(usize),
    /// So many bytes, and then one now and then.
    Trickle(usize),
    /// The first byte is another.
    WrongBytes,
    /// More bytes than there are.
    TooMuch,
    /// An answer with this status and these headers.
    Status(u16, &'static str),
    /// The whole file, whatever part was asked for.
    NoRange,
}

#[derive(Default)]
pub struct State {
    /// `org/repo`, with the files.
    pub repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Repositories whose licence has to be accepted.
    pub gated: Vec<String>,
    /// Faults by the end of the path, of which each is used once.
    pub faults: Vec<(String, Fault)>,
    /// Names that are listed besides the files.
    pub listed: Vec<String>,
    /// What stands for the commit, the ETag and the length of large files.
    pub commit: Option<String>,
    pub etag: Option<String>,
    pub size: Option<u64>,
    pub requests: Vec<Request>,
}

/// The hub, and the store that it sends large files from, which is another host to it.
pub struct Hub {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let store = serve(state.clone(), None);
        let hub = serve(state.clone(), Some(store));
        Self { endpoint: format!("http://127.0.0.1:{hub}"), state }
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn add(&self, repo: &str, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        self.with(|state| state.repos.insert(repo.to_owned(), files.collect()));
    }

    pub fn fail(&self, path: &str, fault: Fault) {
        self.with(|state| state.faults.push((path.to_owned(), fault)));
    }

    /// The requests so far that got bytes of large files.
    pub fn store_requests(&self) -> Vec<Request> {
        self.with(|state| state.requests.iter().filter(|r| r.at_store).cloned().collect())
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn git_blob(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

fn serve(state: Arc<Mutex<State>>, store: Option<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            thread::spawn(move || answer(stream, &state, store));
        }
    });
    port
}

/// An answer: status, headers, body.
struct Answer(u16, String, Vec<u8>);

fn answer(mut stream: TcpStream, state: &Mutex<State>, store: Option<u16>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((key, value)) = line.split_once(": ") else { break };
        headers.insert(key.to_ascii_lowercase(), value.to_owned());
    }
    let request = Request { method, path, headers, at_store: store.is_none() };
    let (Answer(status, headers, mut body), fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let bare = request.path.split('?').next()?;
        let found = state.faults.iter().position(|(end, _)| bare.ends_with(end.as_str()));
        let fault = found.map(|at| state.faults.remove(at).1);
        let answer = match (&fault, store) {
            (Some(Fault::Status(status, headers)), _) => {
                Answer(*status, (*headers).to_owned(), Vec::new())
            }
            (_, Some(store)) => hub(&state, &request, store),
            (fault, None) => large(&state, &request, matches!(fault, Some(Fault::NoRange))),
        };
        (answer, fault)
    };
    let length = body.len();
    match fault {
        Some(Fault::WrongBytes) => body[0] ^= 1,
        Some(Fault::TooMuch) => body.extend([0; 100]),
        _ => {}
    }
    let length = if matches!(fault, Some(Fault::TooMuch)) { body.len() } else { length };
    let length = if headers.contains("Content-Length") || request.method == "HEAD" && length == 0 {
        String::new()
    } else {
        format!("Content-Length: {length}\r\n")
    };
    let head = format!("HTTP/1.1 {status} X\r\n{headers}{length}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    match fault {
        Some(Fault::Break(n)) => stream.write_all(&body[..n.min(body.len())]).ok()?,
        Some(Fault::Trickle(n)) => {
            stream.write_all(&body[..n]).ok()?;
            for byte in &body[n..] {
                thread::sleep(Duration::from_millis(20));
                stream.write_all(&[*byte]).ok()?;
            }
        }
        _ => stream.write_all(&body).ok()?,
    }
    Some(())
}

/// An answer of the store of large files.
fn large(state: &State, request: &Request, ignores_range: bool) -> Answer {
    let refused = |status| Answer(status, String::new(), Vec::new());
    if request.header("authorization").is_some() {
        return refused(400);
    }
    let wanted = request.path.split('?').next().unwrap().trim_start_matches("/blob/");
    let files = state.repos.values().flat_map(BTreeMap::values);
    let Some(bytes) = files.into_iter().find(|bytes| sha256(bytes) == wanted) else {
        return refused(404);
    };
    let range = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
    match range.and_then(|from| from.parse::<usize>().ok()) {
        Some(from) if !ignores_range && from >= bytes.len() => refused(416),
        Some(from) if !ignores_range => {
            let (last, all) = (bytes.len() - 1, bytes.len());
            let range = format!("Content-Range: bytes {from}-{last}/{all}\r\n");
            Answer(206, range, bytes[from..].to_vec())
        }
        _ => Answer(200, String::new(), bytes.clone()),
    }
}

/// An answer of the hub itself.
fn hub(state: &State, request: &Request, store: u16) -> Answer {
    let error =
        |status, code: &str| Answer(status, format!("X-Error-Code: {code}\r\n"), Vec::new());
    let json = |text: String| Answer(200, String::new(), text.into_bytes());
    let token = request.header("authorization");
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if path == "/api/models" {
        let org = query.split('&').find_map(|part| part.strip_prefix("author=")).unwrap_or("");
        let of_org = state.repos.keys().filter(|repo| repo.starts_with(&format!("{org}/")));
        let ids: Vec<String> = of_org.map(|repo| format!(r#"{{"id": "{repo}"}}"#)).collect();
        return json(format!("[{}]", ids.join(",")));
    }
    let commit = state.commit.as_deref().unwrap_or(COMMIT);
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    if let ["api", "models", org, name, rest] = parts[..] {
        let Some(files) = state.repos.get(&format!("{org}/{name}")) else {
            return error(if token.is_some() { 404 } else { 401 }, "RepoNotFound");
        };
        if !["revision/main", &format!("revision/{COMMIT}"), "revision/v1"].contains(&rest) {
            return error(404, "RevisionNotFound");
        }
        let names = files.keys().chain(&state.listed);
        let siblings = names.map(|name| serde_json::json!({"rfilename": name}));
        let siblings: Vec<serde_json::Value> = siblings.collect();
        return json(serde_json::json!({"sha": commit, "siblings": siblings}).to_string());
    }
    let [org, name, "resolve", _, file] = parts[..] else { return error(404, "") };
    let repo = format!("{org}/{name}");
    let Some(files) = state.repos.get(&repo) else { return error(401, "RepoNotFound") };
    if state.gated.contains(&repo) && token != Some("Bearer good") {
        return error(if token.is_some() { 403 } else { 401 }, "GatedRepo");
    }
    let Some(bytes) = files.get(file) else { return error(404, "EntryNotFound") };
    let size = state.size.unwrap_or(bytes.len() as u64);
    if is_large(file) {
        let (etag, url) = (sha256(bytes), format!("http://127.0.0.1:{store}/blob/"));
        let linked = state.etag.as_ref().unwrap_or(&etag);
        let headers = format!(
            "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{linked}\"\r\nX-Linked-Size: {size}\r\n\
             Location: {url}{etag}?signature=1\r\n"
        );
        return Answer(302, headers, Vec::new());
    }
    let etag = git_blob(bytes);
    let mut headers = format!("X-Repo-Commit: {commit}\r\nETag: \"{etag}\"\r\n");
    if request.method == "HEAD" {
        headers.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
    }
    Answer(200, headers, bytes.clone())
}
