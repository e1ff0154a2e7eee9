//! What can be said of the files without running them.

use std::collections::BTreeSet;
use std::time::Duration;

use fantail::config::{Config, SettingsFile, WithoutToken};
use yaml_serde::Value;

use crate::files::{
    compose, compose_environment, documents, files, image_environment, kubernetes,
    kubernetes_environment, seconds, text, top, words,
};

/// After the drain window, the time in which a gateway lets the last bytes leave.
const LAST_BYTES: Duration = Duration::from_secs(3);

#[test]
fn every_yaml_and_json_file_can_be_read() {
    let mut read = 0;
    for path in files() {
        let text = text(&path);
        let path = path.display();
        match path.to_string().rsplit('.').next() {
            Some("yml" | "yaml") => {
                let documents = documents(&text);
                assert!(documents.iter().all(Value::is_mapping), "{path} is not about anything");
            }
            Some("json") => {
                let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
                assert!(json.is_ok(), "{path}: {json:?}");
            }
            _ => continue,
        }
        read += 1;
    }
    assert!(read >= 8, "only {read} files were found");
}

#[test]
fn every_variable_that_is_named_is_a_setting() {
    let settings: BTreeSet<String> =
        Config::reference().into_iter().map(|[_, variable, ..]| variable).collect();
    let mut named = BTreeSet::new();
    for path in files() {
        for variable in words(&text(&path), "FANTAIL_", |c| c.is_ascii_uppercase() || c == '_') {
            // The scripts' own, which each script explains in its first lines.
            let of_scripts = ["FANTAIL_BINARY", "FANTAIL_DEMO_", "FANTAIL_LOAD_"];
            if of_scripts.iter().any(|prefix| variable.starts_with(prefix)) {
                continue;
            }
            assert!(settings.contains(&variable), "{}: {variable} is not known", path.display());
            named.insert(variable);
        }
    }
    assert!(named.contains("FANTAIL_REDIS_URL") && named.contains("FANTAIL_DRAIN"), "{named:?}");
}

#[test]
fn what_containers_are_told_is_what_the_gateway_accepts() {
    // What the image says, unless whoever runs it says something else.
    let in_container = |environment: Vec<(String, String)>| {
        let mut all = image_environment();
        all.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
        all.extend(environment);
        all
    };
    let read = |environment: Vec<(String, String)>| {
        let mut arguments = vec!["fantail".to_owned()];
        for (variable, value) in environment {
            let setting = Config::reference().into_iter().find(|setting| setting[1] == variable);
            let Some([flag, ..]) = setting else { panic!("{variable} is not known") };
            arguments.extend([flag, value]);
        }
        let config = Config::from_arguments(&arguments);
        config.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    };
    for (file, environment) in
        [("docker-compose.yml", compose_environment()), ("fantail.yaml", kubernetes_environment())]
    {
        let environment = in_container(environment);
        // Others can reach it, so that it does not start without a key.
        let without_key = environment.iter().filter(|(name, _)| name != "FANTAIL_JWT_SECRET");
        let line = read(without_key.cloned().collect()).check_relations().unwrap_err();
        assert!(line.contains("FANTAIL_JWT_SECRET_FILE"), "{file}: {line}");
        assert!(environment.iter().any(|(name, _)| name == "FANTAIL_REDIS_URL"), "{file}");
        let config = read(environment);
        assert_eq!(config.check_relations(), Ok(()), "{file}");
        assert_eq!(config.without_token(), WithoutToken::Nothing, "{file}");
        let url = config.redis_url.expect("there is one");
        assert_eq!(fantail::log::redis::check_url(&url), Ok(()), "{file}");
    }
}

/// The settings file that is shown to whoever writes one.
#[test]
fn the_settings_file_says_what_the_gateway_accepts() {
    let settings = Config::reference();
    let variables: Vec<String> =
        settings.iter().map(|[_, variable, ..]| variable.clone()).collect();
    let text = text(&top().join("deploy/fantail.toml"));
    let file = SettingsFile::read(&text, &variables).unwrap();
    assert!(file.values.len() >= 8 && file.issuers.len() == 2, "{file:?}");
    let mut arguments = vec!["fantail".to_owned()];
    for (variable, value) in &file.values {
        let [flag, ..] = settings.iter().find(|setting| setting[1] == *variable).unwrap();
        arguments.push(format!("{flag}={value}"));
    }
    let config = Config::from_arguments(&arguments);
    let config = config.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    let config = Config { issuers_of_file: file.issuers, ..config };
    assert_eq!(config.check_relations(), Ok(()));
    assert_eq!(config.without_token(), WithoutToken::Nothing);
    // A secret has a file of its own, which this one names.
    for secret in ["FANTAIL_JWT_SECRET", "@"] {
        assert!(!file.values.iter().any(|(name, value)| name == secret || value.contains(secret)));
    }
    let url = config.redis_url.expect("there is one");
    assert_eq!(fantail::log::redis::check_url(&url), Ok(()));
}

/// Proxies that cannot run here are not asked what they take for a stream.
#[test]
fn all_proxies_know_a_stream_by_the_same_pattern() {
    let pattern = "/+(events|(boards|topics)/(.+/)?events)/*$";
    for (file, places, begins) in [
        ("nginx/common/locations.conf", 1, "^"),
        ("haproxy/haproxy.cfg", 1, "^"),
        ("caddy/Caddyfile", 2, "^"),
        ("traefik/dynamic.yml", 1, "^"),
        // Its beginning is the controller's to mark.
        ("kubernetes/fantail.yaml", 1, "path: "),
    ] {
        let text = text(&top().join("deploy").join(file));
        assert_eq!(text.matches(&format!("{begins}{pattern}")).count(), places, "{file}");
        assert_eq!(text.matches("events)").count(), places, "{file} has another");
    }
}

/// Whoever is asked for a health, or for metrics, is asked where no token is needed.
#[test]
fn health_and_metrics_are_asked_for_at_the_operators_door() {
    let environment = image_environment();
    let port = |variable: &str| {
        let (_, address) = environment.iter().find(|(name, _)| name == variable).unwrap();
        address.rsplit(':').next().unwrap().to_owned()
    };
    let (public, operators) = (port("FANTAIL_LISTEN"), port("FANTAIL_ADMIN_LISTEN"));
    let of_pods = kubernetes_environment();
    for (variable, port) in [("FANTAIL_LISTEN", &public), ("FANTAIL_ADMIN_LISTEN", &operators)] {
        assert!(of_pods.contains(&(variable.to_owned(), format!("0.0.0.0:{port}"))), "{of_pods:?}");
    }

    let gateway = &compose()["services"]["gateway"];
    assert_eq!(gateway["expose"].as_sequence().unwrap().len(), 2);
    assert!(gateway["ports"].is_null(), "the operators' door would be published");
    let test = gateway["healthcheck"]["test"].as_sequence().unwrap().last().unwrap();
    assert_eq!(test.as_str().unwrap(), format!("http://127.0.0.1:{operators}/readyz"));
    let read = |file: &str| text(&top().join("deploy").join(file));
    let prometheus = documents(&read("prometheus/prometheus.yml")).remove(0);
    let asked = &prometheus["scrape_configs"][0]["dns_sd_configs"][0]["port"];
    assert_eq!(asked.as_u64().unwrap().to_string(), operators);

    let pod = &kubernetes("Deployment", "fantail")["spec"]["template"];
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], operators.as_str());
    let container = &pod["spec"]["containers"][0];
    for (name, number) in [("http", &public), ("admin", &operators)] {
        let mut ports = container["ports"].as_sequence().unwrap().iter();
        let port = ports.find(|port| port["name"] == name).expect("it has a name");
        assert_eq!(port["containerPort"].as_u64().unwrap().to_string(), *number);
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{probe}");
    }
    // Nobody is led there but by those who know the pod, and of those only who may.
    let service = &kubernetes("Service", "fantail")["spec"]["ports"];
    assert_eq!(service.as_sequence().unwrap().len(), 1);
    assert_eq!(service[0]["targetPort"], "http");
    let policy = &kubernetes("NetworkPolicy", "fantail")["spec"]["ingress"];
    let of_port = |port: &str| {
        let mut rules = policy.as_sequence().unwrap().iter();
        rules.find(|rule| rule["ports"][0]["port"] == port).expect("there is a rule").clone()
    };
    assert!(of_port("http")["from"].is_null());
    assert!(of_port("admin")["from"].is_sequence());

    let haproxy = read("haproxy/haproxy.cfg");
    assert_eq!(haproxy.matches(&format!(" check port {operators} ")).count(), 2);
    let traefik = documents(&read("traefik/dynamic.yml")).remove(0);
    for service in ["streams", "requests"] {
        let check = &traefik["http"]["services"][service]["loadBalancer"]["healthCheck"];
        assert_eq!(check["port"].as_u64().unwrap().to_string(), operators, "{service}");
    }
}

#[test]
fn whatever_stops_a_gateway_waits_for_its_drain() {
    let drain = |environment: Vec<(String, String)>| {
        let drain = environment.into_iter().find(|(name, _)| name == "FANTAIL_DRAIN");
        seconds(&drain.expect("FANTAIL_DRAIN is set").1)
    };
    let gateway = &compose()["services"]["gateway"];
    let grace = seconds(gateway["stop_grace_period"].as_str().unwrap());
    assert!(grace > drain(compose_environment()) + LAST_BYTES);

    let pod = &kubernetes("Deployment", "fantail")["spec"]["template"]["spec"];
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    let before_stop = &pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(before_stop[0], "sleep");
    let before_stop: u64 = before_stop[1].as_str().unwrap().parse().unwrap();
    let stopping = Duration::from_secs(before_stop) + drain(kubernetes_environment()) + LAST_BYTES;
    assert!(grace > stopping);
}

#[test]
fn no_proxy_takes_the_silence_between_two_heartbeats_for_the_end() {
    let heartbeat = Config::reference().into_iter().find(|setting| setting[0] == "--heartbeat");
    let heartbeat = seconds(&heartbeat.unwrap()[2]);
    let locations = text(&top().join("deploy/nginx/common/locations.conf"));
    let stream = locations.split("location").find(|part| part.contains("fantail_streams")).unwrap();
    let haproxy = text(&top().join("deploy/haproxy/haproxy.cfg"));
    let ingress = kubernetes("Ingress", "fantail-streams");
    for name in ["proxy-read-timeout", "proxy-send-timeout"] {
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        let value = ingress["metadata"]["annotations"][&name].as_str().unwrap();
        assert!(seconds(&format!("{value}s")) > 2 * heartbeat, "{name}: {value}");
    }
    let timeouts = ["proxy_read_timeout ", "send_timeout ", "timeout server ", "timeout client "]
        .map(|name| (name, if name.contains("_") { stream } else { &haproxy }));
    for (name, text) in timeouts {
        let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{name}is not set"));
        let value = rest.split([';', '\n']).next().unwrap();
        assert!(seconds(value) > 2 * heartbeat, "{name}{value}");
    }
}

#[test]
fn every_metric_that_is_shown_or_alerts_exists() {
    let telemetry = text(&top().join("src/telemetry.rs"));
    let lower = |c: char| c.is_ascii_lowercase() || c == '_';
    let known: BTreeSet<String> = words(&telemetry, "\"fantail_", lower)
        .map(|word| word.trim_start_matches('"').to_owned())
        .collect();
    let mut shown = BTreeSet::new();
    for file in [
        "deploy/grafana/dashboards/fantail.json",
        "deploy/prometheus/alerts.yml",
        "deploy/load/run.sh",
    ] {
        for word in words(&text(&top().join(file)), "fantail_", lower) {
            let histogram = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix).filter(|name| known.contains(*name)));
            let name = histogram.unwrap_or(&word);
            // The bare prefix, as scripts use it to filter.
            assert!(name == "fantail_" || known.contains(name), "{file}: {word} is not measured");
            shown.insert(name.to_owned());
        }
    }
    shown.remove("fantail_");
    let unseen: Vec<_> = known.difference(&shown).collect();
    assert!(unseen.is_empty(), "nobody looks at {unseen:?}");
}
