//! [`Compression`]: in which encodings streams are offered.

/// How streams can be compressed, what is preferred first; empty if they are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression(pub Vec<Coding>);

/// A way to compress streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    if text.trim() == "off" {
        return Ok(Compression(Vec::new()));
    }
    let mut codings = Vec::new();
    for name in text.split(',') {
        let coding = match name.trim() {
            "gzip" => Some(Coding::Gzip),
            "br" => Some(Coding::Brotli),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        };
        let coding = coding.filter(|coding| !codings.contains(coding));
        codings.push(coding.ok_or("must be off, or some of zstd, br and gzip, each once")?);
    }
    Ok(Compression(codings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_stand_in_the_order_in_which_they_are_preferred() {
        assert_eq!(compression("off"), Ok(Compression(Vec::new())));
        assert_eq!(
            compression("zstd, br,gzip"),
            Ok(Compression(vec![Coding::Zstd, Coding::Brotli, Coding::Gzip]))
        );
        assert_eq!(compression("gzip"), Ok(Compression(vec![Coding::Gzip])));
        for wrong in ["", "gzip,", "on", "brotli", "gzip,gzip", "off,gzip", "GZIP"] {
            let error = compression(wrong).unwrap_err();
            assert!(error.contains("zstd, br and gzip"), "{wrong}: {error}");
        }
    }
}
