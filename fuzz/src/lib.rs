//! What Fantail reads from the network, given whatever bytes.
//!
//! A [`Target`] is a reader with its properties: not only that it does not panic, but that what it
//! takes is what another reading of the same bytes says, that what is written reads back, and that an
//! input costs no more than its length allows. Each is a file under [`targets`], with seeds under
//! `corpus/`.
//!
//! Two ways lead through the inputs. [`explore()`] alters seeds at random, runs in every test run and
//! needs nothing but this crate. `src/bin/guided.rs` is libFuzzer, which keeps what reaches new code;
//! `make fuzz` builds it so that it can see that.

pub mod cost;
pub mod explore;
pub mod mutate;
pub mod standard;
pub mod targets;

pub use explore::explore;
pub use targets::TARGETS;

/// A reader of the network and its properties.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its file under `targets`, and its directory under `corpus`.
    pub name: &'static str,
    /// Gives an input to the reader. Panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Words of its language.
    pub words: &'static [&'static str],
}

/// The longest input, in bytes: as long as a request head may be.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

impl Target {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Its seeds.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn seeds(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let files = std::fs::read_dir(corpus.join(self.name))?;
        let mut paths = files.map(|file| Ok(file?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        paths.into_iter().map(std::fs::read).collect()
    }

    /// Gives an input to the reader, and sees to what it costs.
    ///
    /// # Panics
    /// A property does not hold.
    pub fn check(&self, input: &[u8]) {
        let input = &input[..input.len().min(INPUT_BYTES_MAX)];
        cost::is_linear(input.len(), || (self.run)(input));
    }
}
