//! The proxies that can run here, each with the file that ships for it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::files::{text, top};
use crate::node::Place;
use crate::process::{Directory, Ended, free_port, need, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
    Caddy,
}

/// A running proxy.
pub struct Proxy {
    _process: Ended,
    _directory: Directory,
    /// Where it speaks HTTP/1.1.
    pub http1: SocketAddr,
    /// Where it speaks HTTP/2 without TLS: the files have it with TLS, as browsers want it, and what
    /// is tested here lies above that.
    pub http2: SocketAddr,
}

impl Proxy {
    /// Starts one in front of these nodes.
    pub async fn start(kind: Kind, nodes: &[impl Copy + Into<Place>]) -> Proxy {
        Proxy::start_for(kind, nodes, true).await
    }

    /// An nginx to which nobody is an operator.
    pub async fn start_for_strangers(nodes: &[impl Copy + Into<Place>]) -> Proxy {
        Proxy::start_for(Kind::Nginx, nodes, false).await
    }

    async fn start_for(
        kind: Kind,
        nodes: &[impl Copy + Into<Place>],
        for_operators: bool,
    ) -> Proxy {
        let nodes: Vec<Place> = nodes.iter().map(|&node| node.into()).collect();
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let directory = Directory::new(&format!("{kind:?}-{}", free_port()).to_lowercase());
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (http1, mut http2) = (loopback(free_port()), loopback(free_port()));
        let process = match kind {
            Kind::Nginx => nginx(&addresses, http1, http2, &directory.0, for_operators),
            Kind::Haproxy => haproxy(&nodes, http1, http2, &directory.0),
            Kind::Caddy => {
                http2 = http1;
                caddy(&addresses, http1, &directory.0)
            }
        };
        for address in [http1, http2] {
            let what = format!("{kind:?} listens");
            until(&what, async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        }
        Proxy { _process: process, _directory: directory, http1, http2 }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http1)
    }
}

/// A program that Debian may keep where not everybody looks.
pub fn program(name: &str) -> Command {
    need(&[name]);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

fn spawned(command: &mut Command) -> Ended {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ended(command.spawn().unwrap())
}

/// The text with `from` replaced, which must be there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "there is no {from:?} in\n{text}");
    text.replace(from, to)
}

fn nginx(
    nodes: &[SocketAddr],
    http1: SocketAddr,
    http2: SocketAddr,
    directory: &Path,
    for_operators: bool,
) -> Ended {
    let shipped = top().join("deploy/nginx");
    let servers = |how: &str| {
        nodes.iter().fold(String::new(), |mut all, node| {
            write!(all, "server {node} {how}; ").unwrap();
            all
        })
    };
    let mut configuration = text(&shipped.join("demo.conf"));
    for (from, to) in [
        ("@DIRECTORY@", directory.to_str().unwrap()),
        ("@SERVERS_OF_STREAMS@", &servers("max_fails=0")),
        ("@SERVERS_OF_REQUESTS@", &servers("max_fails=1 fail_timeout=2s")),
        ("@DESCRIPTORS@", "4096"),
        ("@CONNECTIONS@", "2048"),
        ("127.0.0.1:@HTTP_PORT@", &http1.to_string()),
        ("127.0.0.1:@HTTPS_PORT@ ssl http2", &format!("{http2} http2")),
        ("include common/tls.conf;", ""),
        ("ssl_certificate ", "# "),
        ("ssl_certificate_key ", "# "),
    ] {
        configuration = with(&configuration, from, to);
    }
    std::fs::create_dir(directory.join("common")).unwrap();
    for file in std::fs::read_dir(shipped.join("common")).unwrap() {
        let file = file.unwrap();
        let mut shipped = text(&file.path());
        if !for_operators {
            let lines = shipped.lines().filter(|line| !line.trim().starts_with("allow "));
            shipped = lines.fold(String::new(), |all, line| all + line + "\n");
        }
        std::fs::write(directory.join("common").join(file.file_name()), shipped).unwrap();
    }
    run_nginx(&configuration, directory)
}

/// nginx with this configuration, in this directory.
pub fn run_nginx(configuration: &str, directory: &Path) -> Ended {
    let file = directory.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let error_log = directory.join("error.log");
    spawned(program("nginx").arg("-p").arg(directory).arg("-e").arg(error_log).arg("-c").arg(file))
}

fn haproxy(nodes: &[Place], http1: SocketAddr, http2: SocketAddr, directory: &Path) -> Ended {
    let mut configuration = String::new();
    for line in text(&top().join("deploy/haproxy/haproxy.cfg")).lines() {
        if line.trim() == "bind :8080" {
            writeln!(configuration, "    bind {http1}\n    bind {http2} proto h2").unwrap();
        } else if line.trim().starts_with("server-template") {
            let (_, how) = line.split_once(" gateway:3000 ").unwrap();
            let how = with(how, " resolvers dns init-addr none", "");
            for (number, Place { address, operators }) in nodes.iter().enumerate() {
                let how = with(&how, "port 3090", &format!("port {}", operators.port()));
                writeln!(configuration, "    server node-{number} {address} {how}").unwrap();
            }
        } else {
            writeln!(configuration, "{line}").unwrap();
        }
    }
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, configuration).unwrap();
    spawned(program("haproxy").arg("-f").arg(file))
}

fn caddy(nodes: &[SocketAddr], address: SocketAddr, directory: &Path) -> Ended {
    let nodes: Vec<String> = nodes.iter().map(SocketAddr::to_string).collect();
    let shipped = text(&top().join("deploy/caddy/Caddyfile"));
    let mut configuration = with(&shipped, "\nlocalhost {", &format!("\nhttp://{address} {{"));
    while let Some((before, rest)) = configuration.split_once("dynamic a gateway 3000 {") {
        let (_, after) = rest.split_once('}').unwrap();
        configuration = format!("{before}to {}{after}", nodes.join(" "));
    }
    assert!(configuration.contains(&nodes.join(" ")));
    let global = "{\n\tadmin off\n\tauto_https off\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n}\n";
    let file = directory.join("Caddyfile");
    std::fs::write(&file, format!("{global}{configuration}")).unwrap();
    let mut command = program("caddy");
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, directory);
    }
    spawned(command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file))
}
