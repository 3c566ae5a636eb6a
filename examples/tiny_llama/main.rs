//! Writes a page in the manner of Jane Austen with the model beside this file, token by token.
//!
//! ```sh
//! cargo run --release -p brolga --example tiny_llama
//! cargo run --release -p brolga --example tiny_llama -- "Mr. Darcy was"
//! ```

use brolga::generate::reply::Reply;
use brolga::generate::text::Tokenizer;
use brolga::generate::{Generator, Model, Sampling, Settings};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny_llama");
    let prompt = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "It was a fine morning, and".into());

    let model = Model::load(folder, &brolga::Options::default(), 1)?;
    let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary)?;
    let settings = Settings {
        sampling: Sampling {
            temperature: 0.8,
            seed: 7,
            ..Sampling::default()
        },
        max_tokens: 200,
        ..Settings::default()
    };
    let tokens = tokenizer.encode(&prompt, true)?;
    let generator = Generator::new(&model, None, &tokens, settings)?;

    print!("{prompt}");
    for piece in Reply::new(generator, &tokenizer, &tokens, &[]) {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
