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

/// What somebody sets who is told to set a secret.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// With the secret that has to be set, and nothing else that may be.
pub fn compose_environment() -> Vec<(String, String)> {
    let compose = compose();
    let environment = compose["services"]["gateway"]["environment"].as_mapping().unwrap();
    let pairs = environment.iter().map(|(name, value)| {
        let value = value.as_str().unwrap();
        let variable = value.strip_prefix("${").and_then(|value| value.strip_suffix('}'));
        let value = match variable.and_then(|variable| variable.split_once(':')) {
            Some((_, otherwise)) => match otherwise.split_at(1) {
                ("-", default) => default,
                // Without it nothing is started, and this is said.
                ("?", why) if !why.is_empty() => SECRET,
                _ => panic!("{value}"),
            },
            None => value,
        };
        (name.as_str().unwrap().to_owned(), value.to_owned())
    });
    pairs.collect()
}

/// What the image sets for whoever runs it.
pub fn image_environment() -> Vec<(String, String)> {
    let dockerfile = text(&top().join("deploy/Dockerfile"));
    let line = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).expect("it sets some");
    let pairs = line.split(' ').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub fn kubernetes(kind: &str, name: &str) -> Value {
    let documents = documents(&text(&top().join("deploy/kubernetes/fantail.yaml")));
    let mut found = documents
        .into_iter()
        .filter(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Those with a value, and the secret that has to be made; others come from the cluster.
pub fn kubernetes_environment() -> Vec<(String, String)> {
    let deployment = kubernetes("Deployment", "fantail");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let environment = container["env"].as_sequence().unwrap().iter();
    let pairs = environment.filter_map(|variable| {
        let name = variable["name"].as_str()?.to_owned();
        let of_secret = variable["valueFrom"]["secretKeyRef"].is_mapping();
        let value = if of_secret { SECRET } else { variable["value"].as_str()? };
        Some((name, value.to_owned()))
    });
    pairs.collect()
}
