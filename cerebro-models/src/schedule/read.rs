//! Schedules as hyperparameters.

use cerebro_core::{Config, ConfigError};

use super::{Clock, Curve, Patience, Schedule};
use crate::hyperparameters::{Range, invalid, number};

const SCHEDULES: &str = "one of constant, step, exponential, linear, cosine, one_cycle, plateau";

const LENGTHS: [&str; 2] = ["schedule_epochs", "schedule_steps"];
const WARMUPS: [&str; 2] = ["warmup_epochs", "warmup_steps"];

impl Schedule {
    /// The names that have an effect in `config`.
    pub(crate) fn names(config: &Config) -> Result<Vec<&'static str>, ConfigError> {
        let mut names = vec!["schedule"];
        let curve = kind(config)?;
        let (has_length, own): (bool, &[&str]) = match curve {
            "constant" => (false, &[]),
            "step" | "exponential" => (true, &["schedule_factor"]),
            "linear" | "cosine" => (true, &["schedule_minimum"]),
            "one_cycle" => {
                (true, &["schedule_end_divisor", "schedule_rise", "schedule_start_divisor"])
            }
            "plateau" => (
                false,
                &[
                    "schedule_cooldown",
                    "schedule_factor",
                    "schedule_minimum",
                    "schedule_patience",
                    "schedule_threshold",
                ],
            ),
            other => return Err(invalid("schedule", other, "unknown", SCHEDULES)),
        };
        names.extend(own);
        if has_length {
            names.extend(LENGTHS);
        }
        // One cycle rises by itself.
        if curve != "one_cycle" {
            names.extend(WARMUPS);
            if WARMUPS.iter().any(|name| config.get(name).is_some()) {
                names.push("warmup_start");
            }
        }
        if [LENGTHS[0], WARMUPS[0]]
            .iter()
            .any(|name| names.contains(name) && config.get(name).is_some())
        {
            names.push("epoch_rows");
        }
        Ok(names)
    }

    /// Reads the schedule of a Config whose learning rate is `rate`.
    pub(crate) fn read(config: &Config, rate: f64) -> Result<Self, ConfigError> {
        let name = kind(config)?;
        let length = duration(config, LENGTHS, Range::Positive)?;
        let warmup = duration(config, WARMUPS, Range::AtLeastZero)?;
        let is_in_epochs = match (length, warmup) {
            (Some((_, of_length)), Some((value, of_warmup))) if of_length != of_warmup => {
                let name = WARMUPS[usize::from(!of_warmup)];
                let expected = "both in epochs or both in steps";
                return Err(invalid(
                    name,
                    value,
                    "not in the unit of the schedule's length",
                    expected,
                ));
            }
            (Some((_, unit)), _) | (None, Some((_, unit))) => unit,
            (None, None) => false,
        };
        let rows = config.get("epoch_rows").map(|_| config.size("epoch_rows")).transpose()?;
        let clock = match (is_in_epochs, rows) {
            (false, _) => Clock::Steps,
            (true, None) => Clock::Epochs,
            (true, Some(rows)) => Clock::Rows(rows as u64),
        };
        let start = number(config, "warmup_start", Range::Share)?.unwrap_or(1.0 / 3.0);
        let warmup = warmup.map(|(length, _)| (length, start)).filter(|(length, _)| *length > 0.0);
        let curve = curve(config, name, rate, length.map(|(length, _)| length))?;
        if let (Curve::Linear { length, .. } | Curve::Cosine { length, .. }, Some((warmup, _))) =
            (curve, warmup)
            && warmup >= length
        {
            let name = WARMUPS[usize::from(!is_in_epochs)];
            let expected = format!("less than {length}, where the schedule ends");
            return Err(invalid(name, warmup, "too long", &expected));
        }
        Ok(Self { clock, warmup, curve })
    }
}

fn kind(config: &Config) -> Result<&str, ConfigError> {
    if config.get("schedule").is_some() { config.text("schedule") } else { Ok("constant") }
}

fn curve(
    config: &Config,
    name: &str,
    rate: f64,
    length: Option<f64>,
) -> Result<Curve, ConfigError> {
    let length = || {
        let missing = "`schedule_epochs` or `schedule_steps`";
        length.ok_or_else(|| invalid("schedule", name, "without a length", missing))
    };
    let factor = || number(config, "schedule_factor", Range::Share);
    let minimum = || {
        let minimum = number(config, "schedule_minimum", Range::AtLeastZero)?.unwrap_or(0.0);
        if minimum <= rate {
            return Ok(minimum);
        }
        let expected = format!("at most the learning rate, {rate}");
        Err(invalid("schedule_minimum", minimum, "too large", &expected))
    };
    let count = |name: &str, default: u32| {
        if config.get(name).is_none() {
            return Ok(default);
        }
        let value = config.int(name)?;
        let expected = "a whole number of at least 0";
        u32::try_from(value).map_err(|_| invalid(name, value, "out of range", expected))
    };
    let divisor = |name: &str, default: f64| {
        Ok::<_, ConfigError>(number(config, name, Range::AtLeastOne)?.unwrap_or(default))
    };
    Ok(match name {
        "step" => Curve::Step { factor: factor()?.unwrap_or(0.1), length: length()? },
        "exponential" => {
            let missing = "`schedule_factor`";
            let factor =
                factor()?.ok_or_else(|| invalid("schedule", name, "without a factor", missing))?;
            Curve::Exponential { factor, length: length()? }
        }
        "linear" => Curve::Linear { minimum: minimum()?, length: length()? },
        "cosine" => Curve::Cosine { minimum: minimum()?, length: length()? },
        "one_cycle" => Curve::OneCycle {
            length: length()?,
            rise: number(config, "schedule_rise", Range::Fraction)?.unwrap_or(0.3),
            start: divisor("schedule_start_divisor", 25.0)?,
            end: divisor("schedule_end_divisor", 1e4)?,
        },
        "plateau" => Curve::Plateau(Patience {
            factor: factor()?.unwrap_or(0.1),
            minimum: minimum()?,
            epochs: count("schedule_patience", 10)?,
            threshold: number(config, "schedule_threshold", Range::Fraction)?.unwrap_or(1e-4),
            cooldown: count("schedule_cooldown", 0)?,
        }),
        _ => Curve::Constant,
    })
}

/// The one duration of the two names that is given, and whether it is in epochs.
fn duration(
    config: &Config,
    [in_epochs, in_steps]: [&'static str; 2],
    range: Range,
) -> Result<Option<(f64, bool)>, ConfigError> {
    match (number(config, in_epochs, range)?, number(config, in_steps, range)?) {
        (None, None) => Ok(None),
        (Some(epochs), None) => Ok(Some((epochs, true))),
        (None, Some(steps)) => Ok(Some((steps, false))),
        (Some(_), Some(steps)) => {
            let expected = format!("only one of `{in_epochs}` and `{in_steps}`");
            Err(invalid(in_steps, steps, "given beside the other", &expected))
        }
    }
}
