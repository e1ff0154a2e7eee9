//! The files of the deployment, read as their readers read them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use yaml_serde::Value;

pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the deployment.
pub fn files() -> Vec<PathBuf> {
    let mut files = vec![top().join("docker-compose.yml"), top().join("Makefile")];
    let mut directories = vec![top().join("deploy")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of `text` that begin with `prefix` and go on with letters that `belong`.
pub fn words<'a>(
    text: &'a str,
    prefix: &'a str,
    belongs: impl Fn(char) -> bool + 'a,
) -> impl Iterator<Item = String> + 'a {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let rest = &text[at + prefix.len()..];
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        Some(format!("{prefix}{}", &rest[..length]))
    })
}

pub fn seconds(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

pub fn documents(text: &str) -> Vec<Value> {
    let documents = yaml_serde::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).unwrap()).collect()
}

pub fn compose() -> Value {
    documents(&text(&top().join("docker-compose.yml"))).remove(0)
}

pub fn compose_environment() -> Vec<(String, String)> {
    let compose = compose();
    let environment = compose["services"]["gateway"]["environment"].as_mapping().unwrap();
    let pairs = environment.iter().map(|(name, value)| {
        (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned())
    });
    pairs.collect()
}

pub fn kubernetes(kind: &str, name: &str) -> Value {
    let documents = documents(&text(&top().join("deploy/kubernetes/fantail.yaml")));
    let mut found = documents
        .into_iter()
        .filter(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Those with a value; others come from the cluster.
pub fn kubernetes_environment() -> Vec<(String, String)> {
    let deployment = kubernetes("Deployment", "fantail");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let environment = container["env"].as_sequence().unwrap().iter();
    let pairs = environment.filter_map(|variable| {
        let name = variable["name"].as_str()?.to_owned();
        Some((name, variable["value"].as_str()?.to_owned()))
    });
    pairs.collect()
}
