//! The crates that this one is built of come from crates.io, under licences that `deny.toml` allows.
//!
//! `cargo deny` says the same and more, where it is installed (`tests/run.sh all`); this needs nothing
//! but cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Where crates may come from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What cargo says of all crates, of every platform and feature.
fn metadata() -> Value {
    let ask = |how: &[&str]| {
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
            .args(how)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap()
    };
    // Without the network if everything is here; crates of other platforms often are not.
    let offline = ask(&["--offline"]);
    let told = if offline.status.success() { offline } else { ask(&[]) };
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).unwrap()
}

/// What deny.toml says of licences.
struct Licenses {
    allowed: BTreeSet<String>,
    /// Crate and licence.
    exceptions: BTreeSet<(String, String)>,
}

impl Licenses {
    fn read() -> Licenses {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let section = text.split_once("\n[licenses]\n").unwrap().1;
        let section = section.split("\n[").next().unwrap();
        let strings = |list: &str| -> Vec<String> {
            list.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        let (allowed, rest) = section.split_once("allow = [").unwrap().1.split_once(']').unwrap();
        let exceptions = rest.split("{ crate = ").skip(1).flat_map(|exception| {
            let words = strings(exception.split('}').next().unwrap());
            let (name, licenses) = words.split_first().unwrap();
            licenses.iter().map(|license| (name.clone(), license.clone())).collect::<Vec<_>>()
        });
        Licenses {
            exceptions: exceptions.collect(),
            allowed: strings(allowed).into_iter().collect(),
        }
    }

    fn allow(&self, name: &str, expression: &str) -> bool {
        satisfies(expression, &|license| {
            let exception = (name.to_owned(), license.to_owned());
            self.allowed.contains(license) || self.exceptions.contains(&exception)
        })
    }
}

/// The packages that programs and libraries are made of: not what tests alone need, which nobody is
/// given.
fn shipped(metadata: &Value) -> BTreeSet<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let mut shipped = BTreeSet::new();
    let members = metadata["workspace_members"].as_array().unwrap().iter();
    let mut waiting: Vec<&str> = members.map(|id| id.as_str().unwrap()).collect();
    while let Some(id) = waiting.pop() {
        if !shipped.insert(id) {
            continue;
        }
        for dependency in by_id[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                waiting.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    shipped
}

#[test]
fn every_crate_comes_from_crates_io_under_a_licence_that_is_allowed() {
    let (metadata, licenses) = (metadata(), Licenses::read());
    assert!(licenses.allowed.len() > 3 && licenses.allowed.contains("MIT"));
    let shipped = shipped(&metadata);
    assert!(shipped.len() > 100, "{} crates", shipped.len());
    let packages = metadata["packages"].as_array().unwrap();
    let members = metadata["workspace_members"].as_array().unwrap();
    let mut wrong = Vec::new();
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let is_ours = members.contains(&package["id"]);
        if !is_ours && package["source"] != CRATES_IO {
            wrong.push(format!("{name} comes from {}", package["source"]));
        }
        let license = package["license"].as_str().unwrap_or_default();
        let is_shipped = shipped.contains(package["id"].as_str().unwrap());
        if is_shipped && !licenses.allow(package["name"].as_str().unwrap(), license) {
            wrong.push(format!("{name} is under {license:?}"));
        }
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        for dependency in dependencies.filter(|one| is_ours && one["req"] == "*") {
            wrong.push(format!("{name} takes any version of {}", dependency["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether an SPDX expression (<https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>) can
/// be met with what is allowed. A slash means OR in manifests that are old.
fn satisfies(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = any_of(&mut words, is_allowed);
    met == Some(true) && words.is_empty()
}

/// `None` where it is no expression.
fn any_of(words: &mut Vec<&str>, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = all_of(words, is_allowed)?;
    while words.last() == Some(&"OR") {
        words.pop();
        met |= all_of(words, is_allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut Vec<&str>, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = one(words, is_allowed)?;
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words, is_allowed)?;
    }
    Some(met)
}

fn one(words: &mut Vec<&str>, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let word = words.pop()?;
    if word == "(" {
        let met = any_of(words, is_allowed);
        return (words.pop() == Some(")")).then_some(met).flatten();
    }
    if [")", "OR", "AND", "WITH"].contains(&word) {
        return None;
    }
    if words.last() == Some(&"WITH") {
        words.pop();
        return Some(is_allowed(&format!("{word} WITH {}", words.pop()?)));
    }
    Some(is_allowed(word))
}

#[test]
fn an_expression_is_met_by_any_of_its_choices_and_all_of_its_parts() {
    let is_allowed = |license: &str| ["MIT", "ISC", "A WITH e"].contains(&license);
    for (expression, is_met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND MIT", true),
        ("(GPL-3.0 OR ISC) AND MIT", true),
        ("GPL-3.0 OR ISC AND MIT", true),
        ("(GPL-3.0 OR ISC) AND GPL-3.0", false),
        ("A WITH e", true),
        ("A", false),
        ("MIT WITH e", false),
        ("(MIT", false),
        ("MIT)", false),
        ("MIT OR", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(satisfies(expression, &is_allowed), is_met, "{expression}");
    }
}
