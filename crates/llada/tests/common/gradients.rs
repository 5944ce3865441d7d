//! Gradients against those of the official code.

use llada::model::{Gradients, Layout, Model};
use safetensors::SafeTensors;

use super::golden_f32;

pub fn assert_close(what: &str, found: f64, expected: f64, relative: f64) {
    let off = (found - expected).abs() / expected.abs();
    assert!(off <= relative, "{what}: {found}, golden {expected}, off by {off:e}");
}

/// Every gradient that the file records under `prefix`, within 1e-4 of the tensor's largest.
pub fn assert_gradients(
    id: &str,
    file: &SafeTensors<'_>,
    prefix: &str,
    model: &Model,
    gradients: &Gradients,
) {
    let prefix = format!("{prefix}grad.");
    let mut compared = 0;
    for (spec, gradient) in Layout::new(&model.config).specs().iter().zip(&gradients.0) {
        let Some((_, mut expected)) = golden_f32(file, &format!("{prefix}{}", spec.name)) else {
            continue;
        };
        if let Some(fused) = spec.fused {
            let first = fused.first * spec.shape[1];
            expected = expected[first..first + spec.len()].to_vec();
        }
        let largest = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        assert_eq!(gradient.len(), expected.len());
        for (i, (found, expected)) in gradient.iter().zip(&expected).enumerate() {
            let off = (found - expected).abs();
            assert!(off <= 1e-4 * largest, "{id} {} [{i}]: {found} {expected}", spec.name);
        }
        compared += usize::from(spec.begins_tensor());
    }
    let recorded = file.names().iter().filter(|name| name.starts_with(&prefix)).count();
    assert_eq!(compared, recorded, "{id}: every recorded gradient is compared");
    assert!(recorded > 0, "{id} records no gradient");
}
