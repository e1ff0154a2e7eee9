//! [`Request`]: a request over HTTP/1.1 as anybody might send it. Most are nearly ordinary, since
//! what is nearly right is where readers disagree; all are drawn from a seed.

use fastrand::Rng;

/// A request, in parts that can be left out to see which of them matters.
#[derive(Clone, Debug)]
pub struct Request {
    /// What comes before it: blank lines mostly.
    pub leading: Vec<u8>,
    /// The request line with its end.
    pub line: Vec<u8>,
    /// Header lines, each with its end.
    pub headers: Vec<Vec<u8>>,
    /// The line that ends the head.
    pub blank: Vec<u8>,
    pub body: Vec<u8>,
    /// How it is sent.
    pub pieces: Pieces,
    /// Whether the next request comes together with its last piece.
    pub followed_at_once: bool,
}

/// How a request is divided when it is sent.
#[derive(Clone, Debug)]
pub enum Pieces {
    Whole,
    /// Cut there, in bytes.
    At(Vec<usize>),
    /// One byte at a time.
    Bytes,
}

impl Request {
    /// The request of this number; it may name `topic` and nothing else that keeps something.
    pub fn draw(seed: u64, number: u64, topic: &str) -> Request {
        let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rng = &mut rng;
        let mut request = ordinary(rng, topic);
        for _ in 0..[0, 1, 1, 1, 2, 2, 3, 4][rng.usize(..8)] {
            alter(rng, &mut request, topic);
        }
        let length = request.bytes().len();
        request.pieces = match rng.u32(..10) {
            0..5 => Pieces::Whole,
            5 if length < 400 => Pieces::Bytes,
            _ => {
                let mut cuts: Vec<usize> =
                    (0..rng.usize(1..4)).map(|_| rng.usize(..=length)).collect();
                if rng.bool() {
                    // Around the end of the head, where everything is decided.
                    let end = length - request.body.len();
                    cuts.push((end + 2).saturating_sub(rng.usize(..5)).min(length));
                }
                cuts.sort_unstable();
                cuts.dedup();
                Pieces::At(cuts)
            }
        };
        request.followed_at_once = rng.u32(..3) == 0;
        request
    }

    /// The head and the body.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.leading, &self.line, &self.headers.concat(), &self.blank, &self.body]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// What is to be sent at a time; `next` comes at the end if it follows at once.
    pub fn pieces(&self, next: &[u8]) -> Vec<Vec<u8>> {
        let bytes = self.bytes();
        let cuts: Vec<usize> = match &self.pieces {
            Pieces::Whole => Vec::new(),
            Pieces::At(cuts) => cuts.clone(),
            Pieces::Bytes => (1..bytes.len()).collect(),
        };
        let mut from = 0;
        let mut pieces = Vec::new();
        for to in cuts.into_iter().chain([bytes.len()]) {
            let to = to.min(bytes.len());
            if from < to {
                pieces.push(bytes[from..to].to_vec());
                from = to;
            }
        }
        if self.followed_at_once {
            match pieces.last_mut() {
                Some(last) => last.extend_from_slice(next),
                None => pieces.push(next.to_vec()),
            }
        }
        pieces
    }

    /// Whether its answer has a head alone.
    pub fn is_to_head(&self) -> bool {
        self.line.starts_with(b"HEAD ")
    }

    /// The same with something left out, each more ordinary than the one before.
    pub fn simpler(&self) -> Vec<Request> {
        let mut simpler = Vec::new();
        let mut with = |change: &dyn Fn(&mut Request)| {
            let mut request = self.clone();
            change(&mut request);
            if format!("{request:?}") != format!("{self:?}") {
                simpler.push(request);
            }
        };
        with(&|request| request.pieces = Pieces::Whole);
        with(&|request| request.followed_at_once = false);
        with(&|request| request.leading.clear());
        with(&|request| request.body.clear());
        if self.headers.len() > 8 {
            with(&|request| request.headers.truncate(request.headers.len() / 2));
            with(&|request| drop(request.headers.drain(..request.headers.len() / 2)));
        }
        for n in 0..self.headers.len().min(120) {
            with(&|request| drop(request.headers.remove(n)));
        }
        simpler
    }
}

/// One of these texts, which are divided by bars.
fn text<'a>(rng: &mut Rng, texts: &'a str) -> &'a str {
    let texts: Vec<&str> = texts.split('|').collect();
    texts[rng.usize(..texts.len())]
}

/// One of these byte strings, which are divided by bars.
fn bytes<'a>(rng: &mut Rng, strings: &'a [u8]) -> &'a [u8] {
    let strings: Vec<&[u8]> = strings.split(|&byte| byte == b'|').collect();
    strings[rng.usize(..strings.len())]
}

fn ordinary(rng: &mut Rng, topic: &str) -> Request {
    let own = own(topic);
    let (line, body) = match rng.u32(..20) {
        0..11 => (format!("GET {own} HTTP/1.1"), ""),
        11 => (format!("GET /events?topics={topic} HTTP/1.1"), ""),
        12 => (format!("GET /events?topics={topic},other HTTP/1.1"), ""),
        13 => ("GET /boards/board-1/events HTTP/1.1".to_owned(), ""),
        14 => ("GET /boards/nope/events HTTP/1.1".to_owned(), ""),
        15 => (format!("HEAD {own} HTTP/1.1"), ""),
        16 => (format!("POST {own} HTTP/1.1"), r#"{"data":"text"}"#),
        17 => ("GET /healthz HTTP/1.1".to_owned(), ""),
        18 => (format!("GET /topics/{topic}/history HTTP/1.1"), ""),
        _ => (format!("OPTIONS {own} HTTP/1.1"), ""),
    };
    let mut headers = vec![b"Host: gateway.localhost\r\n".to_vec()];
    if rng.bool() {
        headers.push(b"Accept: text/event-stream\r\n".to_vec());
    }
    if !body.is_empty() {
        headers.push(b"Content-Type: application/json\r\n".to_vec());
        headers.push(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    Request {
        leading: Vec::new(),
        line: format!("{line}\r\n").into_bytes(),
        headers,
        blank: b"\r\n".to_vec(),
        body: body.as_bytes().to_vec(),
        pieces: Pieces::Whole,
        followed_at_once: false,
    }
}

/// Makes a request less ordinary in one way.
fn alter(rng: &mut Rng, request: &mut Request, topic: &str) {
    match rng.u32(..20) {
        0..4 => request.line = line(rng, request.line.split(|&byte| byte == b' ').next(), topic),
        4 => {
            let leading = b"\r\n|\n|\r\n\r\n\r\n| |\r|\0|\n\n \n";
            request.leading = bytes(rng, leading).to_vec();
        }
        5 => line_ends(rng, request),
        6 => request.blank = bytes(rng, b"\n|\r|\r\r\n| \r\n||\r\n\r\n|\n\r\n").to_vec(),
        7 => {
            // As many headers as readers have room for, one less and one more.
            let count: usize = text(rng, "62|63|64|65|66|98|99|100|101").parse().unwrap();
            while request.headers.len() < count {
                let header = format!("X-{}: {}\r\n", request.headers.len(), rng.u8(..));
                request.headers.push(header.into_bytes());
            }
        }
        8 => pad(rng, request),
        9 => {
            // The same header twice, with the same value or another.
            let twice = "Last-Event-ID: 1\r\nLast-Event-ID: x\r\n|\
                         Last-Event-ID: \r\nLast-Event-ID: 1\r\n|Host: a\r\nHost: b\r\n|\
                         Connection: keep-alive\r\nConnection: close\r\n|\
                         Connection: close\r\nConnection: keep-alive\r\n|\
                         Content-Length: 0\r\nContent-Length: 0\r\n|\
                         Content-Length: 0\r\nContent-Length: 1\r\n|\
                         Origin: https://a.example\r\nOrigin: https://b.example\r\n";
            let lines = text(rng, twice).split_inclusive("\r\n");
            request.headers.extend(lines.map(|line| line.as_bytes().to_vec()));
        }
        10 => {
            // A byte that should not be there, or not the one that should, or none.
            let part = match rng.usize(..=request.headers.len()) {
                0 => &mut request.line,
                n => &mut request.headers[n - 1],
            };
            let at = rng.usize(..part.len().max(1));
            let byte = bytes(rng, b"\0|\x01|\t|\n|\r| |:|_|\x7f|\x80|\xc3|\xff")[0];
            match rng.u32(..3) {
                0 => part.insert(at, byte),
                _ if at == part.len() => {}
                1 => part[at] = byte,
                _ => drop(part.remove(at)),
            }
        }
        11..13 => body(rng, request),
        _ => {
            let at = rng.usize(..=request.headers.len());
            let header = header(rng);
            request.headers.insert(at, header);
        }
    }
}

/// A request line of which one part is not quite right, or something else.
fn line(rng: &mut Rng, method: Option<&[u8]>, topic: &str) -> Vec<u8> {
    let (mut method, mut target) = (method.unwrap_or_default().to_vec(), own(topic).into_bytes());
    let (mut version, mut between, mut end) = ("HTTP/1.1", &b" "[..], &b"\r\n"[..]);
    match rng.u32(..8) {
        0 => {
            let methods = "POST|PUT|PATCH|DELETE|HEAD|OPTIONS|CONNECT|TRACE|PRI|get|Get|FLY|G@T|\
                           GET,||VERY-LONG-METHOD-INDEED";
            method = text(rng, methods).into();
        }
        1..3 => {
            version = text(
                rng,
                "HTTP/1.0|HTTP/1.0|HTTP/1.0|HTTP/1.0|HTTP/2.0|HTTP/1.2|HTTP/0.9|HTTP/1|HTTP/1.10|\
                 http/1.1|HTTP/1.1 | HTTP/1.1|HTTP/1.1x|HTTP /1.1|",
            );
        }
        3 => between = bytes(rng, b"  |\t||\x0b"),
        4 => end = bytes(rng, b"\n|\r| \r\n|\r\n |"),
        _ => target = any_target(rng, topic),
    }
    [&method, between, &target, between, version.as_bytes(), end].concat()
}

fn own(topic: &str) -> String {
    format!("/topics/{topic}/events")
}

fn any_target(rng: &mut Rng, topic: &str) -> Vec<u8> {
    let own = own(topic);
    match rng.u32(..16) {
        0..3 => {
            let after = "?|?from=earliest|?from=x|?snapshot=true|?lastEventId=1|/|/?|;x=y|?x#part|\
                         ?lastEventId=1-zzzzzz|?a=b&c|?lastEventId=%zz|?x=/events|#part|?ü|\
                         ?from=earliest&from=earliest";
            format!("{own}{}", text(rng, after)).into_bytes()
        }
        3 => {
            let before = "http://gateway.localhost|http://other:80|https://gateway.localhost|HTTP://gateway.localhost|gateway|\
                          //gateway|http:/|http://|x:";
            format!("{}{own}", text(rng, before)).into_bytes()
        }
        4 => own.replace('t', "%74").into_bytes(),
        5 => own.replace("/events", "%2Fevents").into_bytes(),
        6 => {
            let code = text(rng, "20|2f|00|FF|c3%bc||1|zz|25");
            format!("/topics/{topic}%{code}/events").into_bytes()
        }
        7..9 => {
            let odd = b"\xc3\xbc|\xff|\x80|\"|<>|`|{}|\\|^|\t|\x7f|\x01|[|]";
            [b"/topics/", topic.as_bytes(), bytes(rng, odd), b"/events"].concat()
        }
        9 => format!("/topics/{topic}/./events/../events").into_bytes(),
        10 => format!("//topics/{topic}//events").into_bytes(),
        11 => format!("/x?y=/topics/{topic}/events").into_bytes(),
        12 => {
            let other = "*|/||gateway:80|/events|/events?topics=|events|/healthz|/favicon.svg|\
                         /boards/board-1/events?snapshot=true";
            text(rng, other).into()
        }
        13 => format!("/topics/{}/events", "x".repeat(rng.usize(195..205))).into_bytes(),
        14 => format!("{own}?{}", "x".repeat(rng.usize(8_000..8_300))).into_bytes(),
        _ => format!("{own}?{}", "x".repeat(rng.usize(65_300..65_700))).into_bytes(),
    }
}

fn line_ends(rng: &mut Rng, request: &mut Request) {
    let end = bytes(rng, b"\n|\n|\r|\r\r\n|\n\r");
    let everywhere = rng.bool();
    let chosen = rng.usize(..=request.headers.len());
    let lines = std::iter::once(&mut request.line).chain(&mut request.headers);
    for (n, line) in lines.enumerate() {
        if (everywhere || n == chosen) && line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            line.extend_from_slice(end);
        }
    }
}

/// Makes the whole head about as long as readers look ahead, or take at all.
fn pad(rng: &mut Rng, request: &mut Request) {
    let bound = [8 << 10, 8 << 10, 16 << 10, 64 << 10][rng.usize(..4)];
    let length = bound - 4 + rng.usize(..9);
    let missing = (length + request.body.len()).saturating_sub(request.bytes().len());
    if missing > 16 {
        let name = text(rng, "Cookie|X-Long");
        let value = "v".repeat(missing - name.len() - 4);
        request.headers.push(format!("{name}: {value}\r\n").into_bytes());
    }
}

/// A body, and headers that say so in any way that anybody ever did.
fn body(rng: &mut Rng, request: &mut Request) {
    let body = text(rng, "|{}|hello|GET /x HTTP/1.1\r\n\r\n|{\"data\":\"text\"}");
    let mut chunked = false;
    for _ in 0..rng.usize(1..3) {
        let header = if rng.bool() {
            let odd = "0|5|+5|-1|5, 5|5,6|0x5|05| 5|5 ||99999999999999999999|\
                       18446744073709551615|2000000|5;|\t5";
            let length = body.len().to_string();
            let length = if rng.u32(..3) == 0 { text(rng, odd) } else { &length };
            format!("Content-Length: {length}\r\n")
        } else {
            let odd = "Chunked|CHUNKED|gzip, chunked|chunked, gzip|x|chunked, chunked|identity||\
                       chunked,|,chunked|\tchunked|chunked |chunked;q=1|\"chunked\"|xchunked|\
                       chunked\u{b}";
            let coding = if rng.bool() { text(rng, odd) } else { "chunked" };
            let names = "Transfer-Encoding|transfer-encoding|TRANSFER-ENCODING|\
                         Transfer-Encoding |Transfer_Encoding";
            chunked = true;
            format!("{}: {coding}\r\n", text(rng, names))
        };
        request.headers.push(header.into_bytes());
    }
    request.body = body.as_bytes().to_vec();
    if chunked && rng.u32(..4) > 0 {
        let odd = "0|00000005|5;name=value|5 | 5|5;\"\n|-5|g||FFFFFFFFFFFFFFFFF|4|6|+5|0x5|\
                   7fffffffffffffff";
        let size = format!("{:x}", body.len());
        let size = if rng.u32(..4) == 0 { text(rng, odd) } else { &size };
        let line_end = text(rng, "\r\n|\r\n|\r\n|\n|");
        let end = "0\r\n\r\n|0\r\n\r\n|0\r\n\r\n|0\r\nTrailer: x\r\n\r\n|0\n\n|0\r\n||00\r\n\r\n|\
                   0\r\nbad trailer\r\n\r\n";
        let end = text(rng, end);
        request.body = format!("{size}\r\n{body}{line_end}{end}").into_bytes();
    }
}

/// A header that means something to somebody, or should not be one.
fn header(rng: &mut Rng) -> Vec<u8> {
    let names = "Connection|Connection|Connection|Upgrade|Expect|Last-Event-ID|Last-Event-ID|\
                 Origin|Access-Control-Request-Method|Host|X-Other|X-Other|| |Bad Name|Näme|A:B|\
                 (x)|X\tY";
    let name = text(rng, names);
    let fitting: &[u8] = match name {
        "Connection" => {
            b"keep-alive|close|Close|Keep-Alive|KEEP-ALIVE|upgrade|keep-alive, close|te|x|closed|\
              close, keep-alive|keep-alive,|,close|Upgrade, HTTP2-Settings|close\t|\"close\""
        }
        "Last-Event-ID" => b"1|0|1-zzzzzz|0-zzzzzz|99|x|y|a:1,b:2|{|1 |1\t2||\xc3\xbc",
        "Upgrade" => b"h2c|websocket|TLS/1.0|",
        "Expect" => b"100-continue|100-Continue|x|",
        _ => b"*|null|https://a.example|https://b.example|GET|gateway|plain",
    };
    let odd =
        b"|\xc3\xbc|\xff\x80|\0|\x01|\x7f|a\rb|folded\r\n more|folded\r\n\tmore|folded\n more";
    let values = if rng.u32(..6) == 0 { odd } else { fitting };
    let value = bytes(rng, values);
    let name = match rng.u32(..6) {
        0 => name.to_ascii_lowercase(),
        1 => name.to_ascii_uppercase(),
        2 if rng.u32(..3) == 0 => format!("{name} "),
        3 if rng.u32(..3) == 0 => format!(" {name}"),
        _ => name.to_owned(),
    };
    let odd = rng.u32(..10);
    let divider = if odd == 0 { bytes(rng, b":|:  |:\t| : |\t: ||=|:\x0b|: \r\n ") } else { b": " };
    let end = if odd == 1 { bytes(rng, b" \r\n|\t\r\n|\n|\r|| \t \n") } else { b"\r\n" };
    [name.as_bytes(), divider, value, end].concat()
}
