//! The settings of a chat, as they are shown.

use llada::diffusion::{Settings, settings::Key};

/// The settings and their values, one on each line, as `/set` takes them.
pub fn list(settings: &Settings) -> Vec<String> {
    let rows = settings.rows().filter(|(key, _)| key.name != "preset");
    let line = |(key, value): (&Key, Option<String>)| {
        format!("{:24}{}", key.name, value.unwrap_or_else(|| "default".into()))
    };
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::diffusion::Sampler;

    #[test]
    fn every_setting_is_listed_and_can_be_set() {
        let listed = list(&Settings::of(&Sampler::default()));
        for key in Settings::KEYS.iter().filter(|key| key.name != "preset") {
            let line = listed.iter().find(|line| line.split(' ').next() == Some(key.name));
            let value = line.and_then(|line| line.split_whitespace().nth(1)).unwrap();
            Settings::default().set(key.name, value).unwrap();
        }
        assert_eq!(listed.len(), Settings::KEYS.len() - 1);
    }
}
