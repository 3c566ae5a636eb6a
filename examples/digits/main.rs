//! Recognises handwritten digits: compiles the model beside this file, runs it on 360 images it has never seen, and draws
//! a few of them with what it takes them for.

use brolga::{Session, ir::Tensor, npy, tensors};
use std::path::Path;

/// Pixels from light to dark.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

fn main() -> Result<(), brolga::Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
    let session = Session::load(folder.join("digits.onnx"))?;
    let data = npy::read_npz(&folder.join("digits.npz"))?;
    let array = |name: &str| -> &Tensor { &data.iter().find(|(n, _)| n == name).expect("a file of ours").1 };
    let (images, labels) = (array("images"), array("labels").to_i64s());

    let outputs = session.run(&[tensors::view(images)])?;
    let logits = outputs[0].as_slice::<f32>().expect("the model's output is f32");
    let classes: Vec<i64> = logits
        .chunks_exact(10)
        .map(|scores| (0..10).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0) as i64)
        .collect();

    let right = classes.iter().zip(&labels).filter(|(a, b)| a == b).count();
    let t = session.timings();
    println!(
        "compiled in {:.1} ms; {right} of {} images right ({:.1} %)",
        t.compile().as_secs_f64() * 1e3,
        labels.len(),
        100.0 * right as f64 / labels.len() as f64
    );

    // Five that it gets right, and one that it does not.
    let wrong = (0..labels.len()).find(|&i| classes[i] != labels[i]);
    let shown: Vec<usize> = (0..labels.len())
        .filter(|&i| classes[i] == labels[i])
        .take(5)
        .chain(wrong)
        .collect();
    let pixels = images.to_f32s();
    for row in 0..8 {
        for &i in &shown {
            for column in 0..8 {
                let x = pixels[i * 64 + row * 8 + column].clamp(0.0, 1.0);
                let shade = SHADES[(x * (SHADES.len() - 1) as f32).round() as usize];
                print!("{shade}{shade}");
            }
            print!("  ");
        }
        println!();
    }
    for &i in &shown {
        let verdict = if classes[i] == labels[i] {
            format!("{}", classes[i])
        } else {
            format!("{}, is {}", classes[i], labels[i])
        };
        print!("{verdict:^16}  ");
    }
    println!();
    Ok(())
}
