//! Servers by others: nginx with Nchan, Pushpin, a Durable Streams server and Centrifugo, as their
//! packages have them.
//!
//! What is set differently from their defaults is what the load needs (as many connections,
//! requests on a connection and messages a second as it brings) and a history of as many events as
//! Fantail's default.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Dialect, Server, loopback};
use crate::clock;
use crate::process::{self, Process};
use crate::redis::Redis;

/// Where Debian has the module.
pub(super) const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// What Debian names Pushpin's program.
pub(super) const PUSHPIN: &str = "/usr/bin/pushpin";
/// Debian puts nginx where not everybody's path leads.
pub(super) const NGINX: &str = "/usr/sbin/nginx";

/// What some need after they began to answer.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// A directory that is removed when it is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fantail-bench-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Directory(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts nginx with these directives for its server.
fn nginx(directory: &Directory, head: &str, http: &str, server: &str) -> Result<Process, String> {
    let path = directory.0.display();
    let text = format!(
        "{head}\ndaemon off;\nworker_processes auto;\npid {path}/nginx.pid;\n\
         error_log {path}/error.log;\nevents {{ worker_connections 100000; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 100000000;\nclient_body_temp_path {path}/body;\n\
         proxy_temp_path {path}/proxy;\nfastcgi_temp_path {path}/fastcgi;\n\
         uwsgi_temp_path {path}/uwsgi;\nscgi_temp_path {path}/scgi;\n{http}\n\
         server {{\n{server}\n}}\n}}\n"
    );
    let file = directory.write("nginx.conf", &text)?;
    let mut command = Command::new(NGINX);
    command.arg("-e").arg(directory.0.join("error.log")).arg("-c").arg(file);
    Process::start(&mut command)
}

/// An nginx that passes streams on.
pub(crate) struct NginxInFront {
    /// Where it listens.
    pub address: SocketAddrV4,
    process: Process,
    _directory: Directory,
}

impl NginxInFront {
    /// Starts one in front of this server. With `gzip` it compresses each stream by itself, at the
    /// level that the node has; it lets go of each event at once either way.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(server: SocketAddrV4, gzip: bool) -> Result<NginxInFront, String> {
        let directory = Directory::new()?;
        let port = process::free_port();
        let gzip = match gzip {
            true => "gzip on; gzip_comp_level 6; gzip_types text/event-stream; gzip_min_length 0;",
            false => "gzip off;",
        };
        let text = format!(
            "listen 127.0.0.1:{port};\nlocation / {{ proxy_pass http://{server}; \
             proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off; \
             proxy_read_timeout 1h; {gzip} }}"
        );
        let process = nginx(&directory, "", "", &text)?;
        process::until_listening("nginx", port)?;
        Ok(NginxInFront { address: loopback(port), process, _directory: directory })
    }

    /// Its first process, which has the others.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

pub(super) fn nchan(redis: Option<Redis>) -> Result<Server, String> {
    let directory = Directory::new()?;
    let port = process::free_port();
    let (upstream, pass) = match &redis {
        Some(redis) => (
            format!("upstream log {{ nchan_redis_server redis://127.0.0.1:{}; }}", redis.port),
            "nchan_redis_pass log;",
        ),
        None => (String::new(), ""),
    };
    let server = format!(
        "listen 127.0.0.1:{port};\nnchan_message_buffer_length 1000;\n{pass}\n\
         location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; {pass} }}\n\
         location ~ ^/sub/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; {pass} }}"
    );
    let process = nginx(&directory, &format!("load_module {NCHAN_MODULE};"), &upstream, &server)?;
    process::until_listening("nginx", port)?;
    // It listens before it has its connections to Redis, and refuses until then.
    until_taken("POST", port, "/pub/ready")?;
    if redis.is_some() {
        // That was one of its workers; none tells when the others have theirs.
        std::thread::sleep(SETTLING_TIME);
    }
    Ok(Server {
        streams: loopback(port),
        publishing: loopback(port),
        dialect: Dialect::Nchan,
        root: Some(process.pid()),
        redis,
        _processes: vec![process],
        _directory: Some(directory),
    })
}

pub(super) fn pushpin() -> Result<Server, String> {
    let directory = Directory::new()?;
    let [streams, publishing, backend] = [(); 3].map(|()| process::free_port());
    let path = directory.0.display();
    // The backend that holds every stream: what Pushpin is made for.
    let hold = format!(
        "listen 127.0.0.1:{backend};\nlocation ~ ^/stream/(.+)$ {{ default_type \
         text/event-stream; add_header Grip-Hold stream; add_header Grip-Channel $1; return 200 \
         ''; }}"
    );
    let nginx = nginx(&directory, "", "", &hold)?;
    process::until_listening("nginx", backend)?;
    directory.write("routes", &format!("* 127.0.0.1:{backend}\n"))?;
    let own = |name: &str| format!("ipc://{path}/bench-{name}");
    let text = format!(
        "[global]\ninclude={{libdir}}/internal.conf\nrundir={path}\nipc_prefix=bench-\n\
         port_offset=0\n[runner]\nservices=condure,zurl,pushpin-proxy,pushpin-handler\n\
         http_port=127.0.0.1:{streams}\nlogdir={path}\nlog_level=1\nclient_buffer_size=8192\n\
         client_maxconn=50000\ncondure_bin=condure\nzurl_bin=zurl\n[proxy]\nroutesfile=routes\n\
         zurl_out_specs={}\nzurl_out_stream_specs={}\nzurl_in_specs={}\n[handler]\n\
         push_in_spec={}\npush_in_sub_specs={}\npush_in_http_addr=127.0.0.1\n\
         push_in_http_port={publishing}\npush_in_http_max_headers_size=10000\n\
         push_in_http_max_body_size=1000000\nstats_spec={}\ncommand_spec={}\n\
         message_rate=100000000\nmessage_hwm=100000000\n",
        own("zurl-in"),
        own("zurl-in-stream"),
        own("zurl-out"),
        own("push-in"),
        own("push-in-sub"),
        own("stats"),
        own("command")
    );
    let file = directory.write("pushpin.conf", &text)?;
    let process =
        Process::start(Command::new(PUSHPIN).arg(format!("--config={}", file.display())))?;
    process::until_listening("pushpin", streams)?;
    process::until_listening("pushpin", publishing)?;
    // Its parts find each other only after they listen, and some streams are cut until they have.
    until_taken("GET", streams, "/stream/ready")?;
    std::thread::sleep(SETTLING_TIME);
    Ok(Server {
        streams: loopback(streams),
        publishing: loopback(publishing),
        dialect: Dialect::Pushpin,
        root: Some(process.pid()),
        redis: None,
        _processes: vec![process, nginx],
        _directory: Some(directory),
    })
}

pub(super) fn durable_streams(binary: &Path) -> Result<Server, String> {
    let directory = Directory::new()?;
    let port = process::free_port();
    // It is started elsewhere.
    let binary = fs::canonicalize(binary).unwrap_or_else(|_| binary.to_owned());
    let mut command = Command::new(binary);
    command.current_dir(&directory.0).env("DS_STORAGE__MODE", "memory");
    command.env("DS_SERVER__BIND_ADDRESS", format!("127.0.0.1:{port}"));
    // By default it ends every stream after a minute, and the load does not come back.
    command.env("DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS", "0");
    command.env("DS_LIMITS__MAX_MEMORY_BYTES", "4000000000");
    command.env("DS_LIMITS__MAX_STREAM_BYTES", "1000000000");
    command.env("RUST_LOG", "error");
    let process = Process::start(&mut command)?;
    process::until_listening("durable-streams-server", port)?;
    Ok(Server {
        streams: loopback(port),
        publishing: loopback(port),
        dialect: Dialect::DurableStreams,
        root: Some(process.pid()),
        redis: None,
        _processes: vec![process],
        _directory: Some(directory),
    })
}

/// One unidirectional SSE stream a client; who may subscribe to what is not asked. Its history has
/// as many events as the others'.
pub(super) fn centrifugo(binary: &Path, redis: Option<Redis>) -> Result<Server, String> {
    let directory = Directory::new()?;
    let port = process::free_port();
    let engine = match &redis {
        Some(redis) => format!(
            "{{\"type\":\"redis\",\"redis\":{{\"address\":[\"redis://127.0.0.1:{}\"]}}}}",
            redis.port
        ),
        None => "{\"type\":\"memory\"}".to_owned(),
    };
    let text = format!(
        "{{\"http_server\":{{\"address\":\"127.0.0.1\",\"port\":\"{port}\"}},\
         \"log\":{{\"level\":\"error\"}},\"engine\":{engine},\
         \"client\":{{\"insecure\":true,\"connection_limit\":0}},\
         \"channel\":{{\"without_namespace\":{{\"allow_subscribe_for_client\":true,\
         \"history_size\":1000,\"history_ttl\":\"86400s\"}}}},\
         \"http_api\":{{\"insecure\":true}},\"uni_sse\":{{\"enabled\":true}}}}"
    );
    let file = directory.write("config.json", &text)?;
    let process = Process::start(Command::new(binary).arg("--config").arg(file))?;
    process::until_listening("centrifugo", port)?;
    Ok(Server {
        streams: loopback(port),
        publishing: loopback(port),
        dialect: Dialect::Centrifugo,
        root: Some(process.pid()),
        redis,
        _processes: vec![process],
        _directory: Some(directory),
    })
}

/// Waits until a request gets a good answer.
fn until_taken(method: &str, port: u16, path: &str) -> Result<(), String> {
    let taken = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: \
            text/event-stream\r\ncontent-length: 0\r\n\r\n"
        )?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 20"))
    };
    let what = format!("a good answer to {method} {path}");
    clock::until(&what, Duration::from_secs(20), || taken().unwrap_or(false))
}

/// Durable streams are made before they are read.
pub(super) fn create_streams(server: &Server, run: &str, topics: u32) -> Result<(), String> {
    let create = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(server.publishing)?;
        let mut answer = [0; 4096];
        for topic in 0..topics {
            write!(
                stream,
                "PUT /v1/stream/{run}-{topic} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: \
                 text/plain\r\ncontent-length: 0\r\n\r\n"
            )?;
            let length = stream.read(&mut answer)?;
            let answer = String::from_utf8_lossy(&answer[..length]);
            if !answer.starts_with("HTTP/1.1 20") {
                return Err(std::io::Error::other(answer.into_owned()));
            }
        }
        Ok(())
    };
    create().map_err(|error| format!("a stream cannot be made: {error}"))
}
