//! What the hub says of a repository and of its files.

use anyhow::Result;
use llada::hub::{Reference, is_plain_path};
use serde::Deserialize;

use super::{
    checksum::Checksum,
    http::{Ask, Client, Fault, Follow, Refusal, cut_short},
};
use crate::{error::Failure, locate::SHORT_NAMES};

/// Bytes of an answer in JSON, at most: of a repository with ten thousand files 3 MB.
const MAX_JSON: u64 = 32 << 20;

/// How alike two names must be, of 1, for one to be offered for the other.
const ALIKE: f64 = 0.85;

/// The files of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// The paths of the files; those that no folder can take are left out.
    pub files: Vec<String>,
}

/// What the hub says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its path in the repository.
    pub path: String,
    /// The name of its blob in a cache.
    pub etag: String,
    /// Its length.
    pub size: u64,
    /// What its bytes come to, where the hub says so.
    pub checksum: Option<Checksum>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Client {
    /// The files of a repository.
    pub fn listing(&self, reference: &Reference) -> Result<Listing> {
        let (repo, revision) = (reference.repo(), quoted(reference.revision(), ""));
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint());
        let info: Info = match self.patiently(|| self.json(&url))? {
            Ok(info) => info,
            Err(refusal) => return Err(self.refused(reference, None, &refusal).into()),
        };
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if info.sha.len() != 40 || !info.sha.bytes().all(is_hex) {
            let message = format!("the hub gives no commit of `{reference}`");
            return Err(Failure::new(message, "check HF_ENDPOINT").into());
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        let files = files.filter(|file| is_plain_path(file)).collect();
        Ok(Listing { commit: info.sha, files })
    }

    /// What the hub says of a file.
    pub fn remote(&self, reference: &Reference, commit: &str, path: &str) -> Result<Remote> {
        let url = self.file_url(reference, commit, path);
        let response = match self.patiently(|| self.send(&url, Ask::Head, Follow::OnTheHub))? {
            Ok(response) => response,
            Err(refusal) => return Err(self.refused(reference, Some(path), &refusal).into()),
        };
        let header = |key: &str| response.headers().get(key).and_then(|v| v.to_str().ok());
        let etag = header("x-linked-etag").or_else(|| header("etag")).unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let size = header("x-linked-size")
            .or_else(|| header("content-length").filter(|_| response.status().is_success()))
            .and_then(|size| size.parse().ok());
        let path = path.to_owned();
        let is_name = is_plain_path(etag) && !etag.contains('/') && etag.len() <= 128;
        let Some(size) = size.filter(|_| is_name) else {
            let message = format!("the hub does not say what `{path}` of `{reference}` holds");
            return Err(Failure::new(message, "check HF_ENDPOINT, or try again later").into());
        };
        let checksum = Checksum::of_etag(etag);
        Ok(Remote { path, etag: etag.to_owned(), size, checksum })
    }

    /// Where the bytes of a file are asked for.
    pub fn file_url(&self, reference: &Reference, commit: &str, path: &str) -> String {
        let repo = reference.repo();
        format!("{}/{repo}/resolve/{commit}/{}", self.endpoint(), quoted(path, "/"))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, Fault> {
        let response = self.send(url, Ask::Get(0), Follow::Everywhere)?;
        let body = response.into_body().into_with_config().limit(MAX_JSON).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                let most = MAX_JSON >> 20;
                let message = format!("the hub's answer is larger than {most} MiB, the most read");
                let hint = "check HF_ENDPOINT; a repository of so many files has to be fetched \
                            another way, and its folder be given instead of its name";
                Fault::Final(Failure::new(message, hint).into())
            }
            error => cut_short(&std::io::Error::other(error)),
        })?;
        serde_json::from_slice(&body).map_err(|error| {
            let message = format!("the hub's answer cannot be read: {error}");
            Fault::Final(Failure::new(message, "check HF_ENDPOINT").into())
        })
    }

    /// A refusal in words.
    pub fn refused(&self, reference: &Reference, file: Option<&str>, refusal: &Refusal) -> Failure {
        let repo = reference.repo();
        let page = format!("{}/{repo}", self.endpoint());
        let tokens = format!("{}/settings/tokens", self.endpoint());
        let code = refusal.code.as_str();
        let is_gated = code == "GatedRepo" || (refusal.status == 403 && code.is_empty());
        if is_gated {
            let message = format!("`{repo}` is gated: its licence has to be accepted first");
            let next = match self.has_token() {
                true => "the token must be of the account that did, and may read gated \
                         repositories"
                    .to_owned(),
                false => format!("then set HF_TOKEN (or `--token`) to a token from {tokens}"),
            };
            return Failure::new(message, format!("accept it at {page}; {next}"));
        }
        match (refusal.status, code, file) {
            (401, "" | "InvalidToken", _) if self.has_token() => Failure::new(
                format!("the hub does not accept the token for `{repo}`"),
                format!("make another at {tokens}, or unset HF_TOKEN for what everybody may read"),
            ),
            (404, "RevisionNotFound", _) => Failure::new(
                format!("`{repo}` has no revision `{}`", reference.revision()),
                format!("{page} lists its branches and tags"),
            ),
            (404, "EntryNotFound", Some(file)) => Failure::new(
                format!("`{reference}` has no file `{file}`"),
                format!("{page} lists its files"),
            ),
            (401 | 404, ..) => {
                let mut hint = match self.closest(reference) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "check the spelling, capitals too".to_owned(),
                };
                if !self.has_token() {
                    hint.push_str(&format!(
                        " If it is private or gated, set HF_TOKEN to a token from {tokens}"
                    ));
                }
                Failure::new(format!("the hub shows no `{repo}`"), hint)
            }
            (status, ..) => {
                let said = match refusal.message.as_str() {
                    "" => String::new(),
                    said => format!(": {said}"),
                };
                let message = format!("the hub refuses `{reference}` with {status}{said}");
                Failure::new(message, format!("see {page}"))
            }
        }
    }

    /// The name most like one that is not there: of the same publisher, or a known one.
    fn closest(&self, reference: &Reference) -> Option<String> {
        let wanted = reference.repo().to_string();
        let org = quoted(reference.repo().org(), "");
        let url = format!("{}/api/models?author={org}&limit=200", self.endpoint());
        let published: Vec<Named> = self.json(&url).unwrap_or_default();
        let known = SHORT_NAMES.iter().map(|(_, name)| (*name).to_owned());
        let names = published.into_iter().map(|named| named.id).chain(known);
        let names = names.filter(|name| *name != wanted && name.parse::<Reference>().is_ok());
        let likeness = |name: &str| {
            strsim::jaro_winkler(&name.to_ascii_lowercase(), &wanted.to_ascii_lowercase())
        };
        let scored = names.map(|name| (likeness(&name), name));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= ALIKE).then_some(best.1)
    }
}

/// `text` for an address: what is not a letter, a digit or of `kept` as %XX.
fn quoted(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~') || kept.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_quote_what_has_a_meaning() {
        assert_eq!(quoted("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(quoted("a b/ü?#.gguf", "/"), "a%20b/%C3%BC%3F%23.gguf");
    }
}
