//! What the files name exists: other files, services, and each other's parts.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use yaml_serde::Value;

use crate::files::{compose, documents, files, text, top};
use crate::process::Directory;

#[test]
fn what_the_compose_file_mounts_builds_and_waits_for_exists() {
    let compose = compose();
    let services = compose["services"].as_mapping().unwrap();
    let volumes = compose["volumes"].as_mapping().unwrap();
    let mut seen = 0;
    for (name, service) in services {
        let name = name.as_str().unwrap();
        let build = &service["build"];
        if let Some(context) = build["context"].as_str().or(build.as_str()) {
            let dockerfile = build["dockerfile"].as_str().unwrap_or("Dockerfile");
            assert!(top().join(context).join(dockerfile).is_file(), "{name}: {dockerfile}");
            seen += 1;
        }
        for volume in service["volumes"].as_sequence().into_iter().flatten() {
            let (source, _) = volume.as_str().unwrap().split_once(':').unwrap();
            let known = match source.starts_with('.') {
                true => top().join(source).exists(),
                false => volumes.contains_key(source),
            };
            assert!(known, "{name}: there is no {source}");
            seen += 1;
        }
        let awaited = &service["depends_on"];
        let by_condition = awaited.as_mapping().into_iter().flat_map(|all| all.keys());
        for other in by_condition.chain(awaited.as_sequence().into_iter().flatten()) {
            assert!(services.contains_key(other), "{name}: there is no service {other:?}");
            let healthy = awaited[other]["condition"] == "service_healthy";
            let checks = services[other]["healthcheck"].is_mapping();
            assert!(!healthy || checks, "{name}: {other:?} has no health check to wait for");
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} references were found");
}

#[test]
fn what_the_images_copy_exists() {
    let mut copied = 0;
    for (dockerfile, context) in
        [("deploy/Dockerfile", ""), ("deploy/nginx/Dockerfile", "deploy/nginx")]
    {
        for line in text(&top().join(dockerfile)).lines() {
            let Some(arguments) = line.strip_prefix("COPY ") else { continue };
            let words: Vec<&str> =
                arguments.split(' ').filter(|word| !word.starts_with("--")).collect();
            // From another stage: what that one built or had.
            let sources =
                if arguments.contains("--from=") { &[] } else { &words[..words.len() - 1] };
            for source in sources {
                let path = top().join(context).join(source);
                assert!(path.exists(), "{dockerfile}: there is no {source}");
                copied += 1;
            }
        }
    }
    assert!(copied >= 8, "only {copied} sources were found");
}

/// The first layer of the image has manifests and empty programs alone, and cargo must be content
/// with them; the program itself must need no file that the image does not copy.
#[test]
fn the_image_copies_everything_that_cargo_reads() {
    let dockerfile = text(&top().join("deploy/Dockerfile"));
    let directory = Directory::new("image");
    for name in ["src", "check/src", "bench", "fuzz", "httpdate/src"] {
        std::fs::create_dir_all(directory.0.join(name)).unwrap();
    }
    for name in ["src/main.rs", "src/lib.rs", "check/src/lib.rs"] {
        std::fs::write(directory.0.join(name), "").unwrap();
    }
    for name in
        ["Cargo.toml", "Cargo.lock", "check/Cargo.toml", "bench/Cargo.toml", "fuzz/Cargo.toml"]
    {
        assert!(dockerfile.contains(&format!("{name} ")), "{name} is not copied");
        std::fs::copy(top().join(name), directory.0.join(name)).unwrap();
    }
    assert!(dockerfile.contains("COPY httpdate httpdate"));
    for name in ["httpdate/Cargo.toml", "httpdate/src/lib.rs"] {
        std::fs::copy(top().join(name), directory.0.join(name)).unwrap();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let output = cargo.current_dir(&directory.0).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    for source in ["src", "check/src"] {
        let mut directories = vec![top().join(source)];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    assert_includes_stay_within(&top().join(source), &path);
                }
            }
        }
    }
}

fn assert_includes_stay_within(room: &Path, file: &Path) {
    let code = text(file);
    for include in ["include_str!(\"", "include_bytes!(\""] {
        for rest in code.split(include).skip(1) {
            let path = file.parent().unwrap().join(rest.split('"').next().unwrap());
            let path = std::fs::canonicalize(&path).unwrap();
            let room = std::fs::canonicalize(room).unwrap();
            assert!(path.starts_with(room), "{} includes {}", file.display(), path.display());
        }
    }
}

#[test]
fn what_traefik_and_kubernetes_name_is_defined_beside_it() {
    let traefik = documents(&text(&top().join("deploy/traefik/dynamic.yml"))).remove(0);
    let http = &traefik["http"];
    let mut named = 0;
    let defined = |kind: &str, name: &Value| {
        assert!(http[kind][name].is_mapping(), "Traefik: there is no {name:?} in {kind}");
    };
    for router in http["routers"].as_mapping().unwrap().values() {
        defined("services", &router["service"]);
        for middleware in router["middlewares"].as_sequence().unwrap() {
            defined("middlewares", middleware);
            named += 1;
        }
    }
    for service in http["services"].as_mapping().unwrap().values() {
        let transport = &service["loadBalancer"]["serversTransport"];
        if transport.is_string() {
            defined("serversTransports", transport);
            named += 1;
        }
    }
    defined("services", &http["middlewares"]["come-back-later"]["errors"]["service"]);

    let kubernetes = documents(&text(&top().join("deploy/kubernetes/fantail.yaml")));
    let of_kind = |kind: &str| -> Vec<&Value> {
        kubernetes.iter().filter(|document| document["kind"] == kind).collect()
    };
    let name = |document: &Value| document["metadata"]["name"].as_str().unwrap().to_owned();
    let services: BTreeSet<String> = of_kind("Service").into_iter().map(name).collect();
    for ingress in of_kind("Ingress") {
        for path in ingress["spec"]["rules"][0]["http"]["paths"].as_sequence().unwrap() {
            let service = path["backend"]["service"]["name"].as_str().unwrap();
            assert!(services.contains(service), "there is no service {service}");
            named += 1;
        }
        let otherwise =
            &ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/default-backend"];
        assert!(otherwise.as_str().is_none_or(|name| services.contains(name)), "{otherwise:?}");
    }
    let pods: Vec<&Value> = of_kind("Deployment")
        .into_iter()
        .map(|deployment| &deployment["spec"]["template"]["metadata"]["labels"])
        .collect();
    for selecting in of_kind("Service").into_iter().map(|service| &service["spec"]["selector"]) {
        let selects = |labels: &&&Value| {
            let wanted = selecting.as_mapping().unwrap();
            wanted.iter().all(|(label, value)| labels[label] == *value)
        };
        assert_eq!(pods.iter().filter(selects).count(), 1, "{selecting:?}");
        named += 1;
    }
    assert!(named >= 8, "only {named} names were found");
}

/// A comment of one file that says which command or file belongs to it.
#[test]
fn what_the_files_say_of_other_files_is_true() {
    let mut named = 0;
    for path in files() {
        for word in text(&path).split([' ', '\n', ',', ';', ')', '(', '"', '\'', '=', ':']) {
            let word = word.trim_end_matches('.');
            if word.starts_with("deploy/") && word.len() > "deploy/".len() {
                assert!(top().join(word).exists(), "{}: there is no {word}", path.display());
                named += 1;
            }
        }
    }
    assert!(named >= 5, "only {named} files were named");
}
