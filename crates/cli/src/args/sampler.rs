//! The flags of the sampler's settings: each row of the library's table is one.

use std::{marker::PhantomData, str::FromStr};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use llada::diffusion::{
    Range, SamplerError, Settings,
    settings::{Group, Key, Kind},
};

use super::with_tip;

/// Which settings a verb has as flags, and what it says of them that the table does not.
pub trait Verb {
    /// The heading over those that are not about fewer passes.
    const HEADING: &'static str = Group::Sampling.title();

    /// Settings that are no flags of it.
    const WITHOUT: &'static [&'static str] = &[];

    /// The flag of a setting, as the table has it, with what differs here.
    fn flag(_key: &Key, flag: Arg) -> Arg {
        flag
    }
}

/// The settings that a verb's flags make.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flags<V> {
    /// What they say.
    pub settings: Settings,
    verb: PhantomData<V>,
}

/// The flags of a verb that has all settings.
pub type SamplerArgs = Flags<All>;

/// Any verb that has all settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct All;

impl Verb for All {}

impl<V: Verb> Flags<V> {
    fn keys() -> impl Iterator<Item = &'static Key> {
        let is_flag = |key: &&Key| !V::WITHOUT.contains(&key.name);
        let of = move |group| Settings::KEYS.iter().filter(move |key| key.group == group);
        Group::ALL.into_iter().flat_map(of).filter(is_flag)
    }
}

/// The flag of a setting.
fn flag(key: &'static Key, heading: &'static str) -> Arg {
    let default = key.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let arg = Arg::new(key.name)
        .long(key.flag())
        .aliases(key.aliases)
        .help(format!("{}{default}", key.about()))
        .help_heading(heading)
        .hide_short_help(!key.is_frequent);
    let arg = match key.short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    let arg = match key.needs {
        Some(other) => arg.requires(other),
        None => arg,
    };
    match key.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Number(_) | Kind::Seed | Kind::Name(_) => arg
            .value_name(key.placeholder)
            .value_parser(move |text: &str| valid(key, text))
            // One below zero is a value that its range refuses, and no flag.
            .allow_negative_numbers(!matches!(key.kind, Kind::Name(_))),
    }
}

/// What llama.cpp calls strategies.
const ALGORITHMS: [(&str, &str); 4] =
    [("1", "entropy"), ("2", "margin"), ("3", "random"), ("4", "low-confidence")];

/// A text that is a value of the setting.
fn valid(key: &Key, text: &str) -> Result<String, String> {
    let number = ALGORITHMS.iter().find(|(number, _)| key.name == "remasking" && *number == text);
    let text = number.map_or(text, |(_, name)| name);
    let mut settings = Settings::default();
    settings.set(key.name, text).map_err(explained)?;
    match settings == Settings::NONE {
        // What leaves a setting open elsewhere is no value: a flag is left out instead.
        true => Err(format!("`{text}` is what the flag is without a value\n  tip: leave it out")),
        false => Ok(text.to_owned()),
    }
}

impl<V: Verb> Args for Flags<V> {
    fn augment_args(command: Command) -> Command {
        Self::keys().fold(command, |command, key| {
            let heading = match key.group {
                Group::Sampling => V::HEADING,
                Group::Saving => key.group.title(),
            };
            command.arg(V::flag(key, flag(key, heading)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<V: Verb> FromArgMatches for Flags<V> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self { settings: Settings::default(), verb: PhantomData };
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let is_given =
            |key: &&Key| matches.value_source(key.name) == Some(ValueSource::CommandLine);
        for key in Self::keys().filter(is_given) {
            let text = match key.kind {
                Kind::Switch => matches.get_one::<bool>(key.name).map(bool::to_string),
                _ => matches.get_one::<String>(key.name).cloned(),
            };
            let set = self.settings.set(key.name, &text.unwrap_or_default());
            set.map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, e))?;
        }
        Ok(())
    }
}

/// Reads a name of the library's, with its remedy.
pub fn parse<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err = SamplerError>,
{
    text.parse().map_err(explained)
}

/// Reads a number of the sampler's setting `name`, within its range.
pub fn number<T>(
    name: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + Clone + Send + Sync + 'static,
{
    move |text| Range::parse(name, text).map_err(explained)
}

/// An error with its remedy, in the form in which clap gives those of its own.
#[allow(clippy::needless_pass_by_value)]
pub fn explained(error: SamplerError) -> String {
    with_tip(&error.to_string(), &error.hint().unwrap_or_default())
}

#[cfg(test)]
#[path = "../../../../tests/settings.rs"]
mod values;

#[cfg(test)]
mod tests {
    use super::{
        values::{example, outside},
        *,
    };
    use crate::args::{Command, read};

    fn parse(words: &[String]) -> Result<Command, clap::Error> {
        read(words.iter().map(Into::into)).map(|cli| cli.command)
    }

    /// The words of a verb with a flag.
    fn line(verb: &str, key: &Key, value: &str) -> Vec<String> {
        let flag = format!("--{}", key.flag());
        let words = verb.split(' ').map(str::to_owned);
        let needed = key.needs.map(|other| format!("--{}=8", other.replace('_', "-")));
        let value = (!matches!(key.kind, Kind::Switch)).then(|| value.to_owned());
        words.chain(needed).chain([flag]).chain(value).collect()
    }

    #[test]
    fn every_setting_is_a_flag() {
        let made = |command: Command| match command {
            Command::Run(run) => run.sampler.settings,
            Command::Chat(chat) => chat.talk.sampler.settings,
            Command::Infill(infill) => infill.sampler.settings,
            Command::Eval(super::super::Eval::Run(run)) => run.sampling.sampler.settings,
            other => panic!("{other:?}"),
        };
        let without = |verb: &str| match verb {
            "llada infill" => super::super::infill::OfHoles::WITHOUT,
            "llada eval run t" => super::super::eval::OfTasks::WITHOUT,
            _ => &[],
        };
        for verb in ["llada run", "llada chat", "llada infill", "llada eval run t"] {
            let missing = without(verb);
            assert!(missing.iter().all(|name| Key::named(name).is_ok()), "{missing:?}");
            for key in Settings::KEYS.iter().filter(|key| !missing.contains(&key.name)) {
                let mut expected = Settings::default();
                expected.set(key.name, &example(key)).unwrap();
                if let Some(needed) = key.needs {
                    expected.set(needed, "8").unwrap();
                }
                assert_eq!(made(parse(&line(verb, key, &example(key))).unwrap()), expected);
            }
        }
    }

    #[test]
    fn every_number_outside_its_range_is_refused() {
        for key in Settings::KEYS {
            let Some(range) = key.range() else { continue };
            for wrong in outside(key) {
                let error = parse(&line("llada run", key, &wrong)).unwrap_err().to_string();
                let expected = format!("{} is {wrong}, which is not {range}", key.name);
                assert!(error.contains(&expected), "{error}");
                assert!(error.contains(&format!("--{} ", key.flag())), "{error}");
            }
            // What takes a setting back in a chat is no value of a flag.
            assert!(parse(&line("llada run", key, "default")).is_err(), "{}", key.name);
        }
    }
}
