//! nginx in front of nodes, with the configuration that ships in `deploy/nginx`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::{Process, TempDir, free_port};
use super::until;

/// A running nginx.
pub struct Nginx {
    _process: Process,
    pub http: SocketAddr,
    pub https: SocketAddr,
    _dir: TempDir,
}

impl Nginx {
    /// Starts it in front of these nodes.
    pub async fn start(nodes: &[SocketAddr]) -> Nginx {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx");
        let dir = TempDir::new();
        // Its workers may run as another user.
        let path = dir.0.to_str().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ])
            .args(["-keyout", &format!("{path}/key.pem")])
            .args(["-out", &format!("{path}/certificate.pem")])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
        let servers = |how: &str| -> String {
            nodes.iter().map(|node| format!("server {node} {how}; ")).collect()
        };
        let (http, https) = (free_port(), free_port());
        let mut text = std::fs::read_to_string(deploy.join("demo.conf")).unwrap();
        for (word, value) in [
            ("@DIRECTORY@", path),
            ("@SERVERS_OF_STREAMS@", &servers("max_fails=0")),
            ("@SERVERS_OF_REQUESTS@", &servers("max_fails=1 fail_timeout=2s")),
            ("@DESCRIPTORS@", "8192"),
            ("@CONNECTIONS@", "4096"),
            ("@HTTP_PORT@", &http.to_string()),
            ("@HTTPS_PORT@", &https.to_string()),
        ] {
            assert!(text.contains(word), "{word} is not in demo.conf");
            text = text.replace(word, value);
        }
        // What it includes is found beside it.
        let copy = format!("{path}/common");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(deploy.join("common")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), Path::new(&copy).join(file.file_name())).unwrap();
        }
        std::fs::write(format!("{path}/nginx.conf"), text).unwrap();
        let child = Command::new("nginx")
            .args(["-p", path, "-c", &format!("{path}/nginx.conf")])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let nginx = Nginx {
            _process: Process::quitting(child),
            http: address(http),
            https: address(https),
            _dir: dir,
        };
        until("nginx listens", async || {
            tokio::net::TcpStream::connect(nginx.https).await.ok().map(drop)
        })
        .await;
        nginx
    }
}
