//! Amounts: money, percentages, measures.

use super::numbers;

/// A currency's names: whole one and many, hundredth one and many (empty if it has none).
struct Currency {
    one: &'static str,
    many: &'static str,
    cent: &'static str,
    cents: &'static str,
}

fn currency(sign: &str) -> Option<Currency> {
    let (one, many, cent, cents) = match sign {
        "$" | "US$" | "USD" | "CAD" | "AUD" => ("dollar", "dollars", "cent", "cents"),
        "€" | "EUR" => ("euro", "euros", "cent", "cents"),
        "£" | "GBP" => ("pound", "pounds", "penny", "pence"),
        "¥" | "JPY" => ("yen", "yen", "", ""),
        "CHF" => ("franc", "francs", "centime", "centimes"),
        "¢" => ("cent", "cents", "", ""),
        _ => return None,
    };
    Some(Currency {
        one,
        many,
        cent,
        cents,
    })
}

/// `million` and its like, behind an amount.
fn magnitude(word: &str) -> Option<&'static str> {
    Some(match word {
        "thousand" | "k" | "K" => "thousand",
        "million" | "m" | "M" | "mn" | "mio" => "million",
        "billion" | "B" | "b" | "bn" => "billion",
        "trillion" => "trillion",
        _ => return None,
    })
}

/// `$45.50`, `-$5`, `$1.5 million` (with `next`), `20€`, `45 USD` (with `next`). Also says whether `next` was
/// used.
pub fn money(core: &str, next: Option<&str>) -> Option<(String, bool)> {
    let (minus, bare) = match core.strip_prefix('-') {
        Some(rest) => ("minus ", rest),
        None => ("", core),
    };
    let prefix = ["US$", "$", "€", "£", "¥"]
        .into_iter()
        .find(|sign| bare.starts_with(sign));
    let mut used = false;
    let (sign, number) = if let Some(sign) = prefix {
        (sign, &bare[sign.len()..])
    } else if let Some(sign) = ["$", "€", "£", "¥", "¢"]
        .into_iter()
        .find(|sign| bare.ends_with(sign))
    {
        (sign, &bare[..bare.len() - sign.len()])
    } else {
        let code = next.filter(|code| code.len() <= 3 && !code.is_empty())?;
        used = true;
        (code, bare)
    };
    let currency = currency(sign)?;
    let number = number.strip_prefix('-').unwrap_or(number);
    let end = number
        .find(|c: char| !(c.is_ascii_digit() || c == ',' || c == '.'))
        .unwrap_or(number.len());
    let (number, suffix) = number.split_at(end);
    let following = if used {
        None
    } else {
        next.filter(|word| word.len() > 2).and_then(magnitude)
    };
    let size = if suffix.is_empty() {
        following
    } else {
        Some(magnitude(suffix)?)
    };
    used |= suffix.is_empty() && following.is_some();
    if let Some(size) = size {
        return Some((
            format!("{minus}{} {size} {}", numbers::written(number)?, currency.many),
            used,
        ));
    }
    Some((format!("{minus}{}", sum(number, &currency)?), used))
}

fn sum(number: &str, currency: &Currency) -> Option<String> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() {
        0
    } else {
        numbers::ungrouped(whole)?.parse().ok()?
    };
    if fraction.len() > 2 || (!fraction.is_empty() && currency.cent.is_empty()) {
        return Some(format!("{} {}", numbers::written(number)?, currency.many));
    }
    let cents: u64 = if fraction.is_empty() {
        0
    } else {
        format!("{fraction:0<2}").parse().ok()?
    };
    let wholes = format!(
        "{} {}",
        numbers::cardinal(whole),
        if whole == 1 { currency.one } else { currency.many }
    );
    let hundredths = format!(
        "{} {}",
        numbers::cardinal(cents),
        if cents == 1 { currency.cent } else { currency.cents }
    );
    Some(match (whole, cents) {
        (_, 0) => wholes,
        (0, _) => hundredths,
        _ => format!("{wholes} and {hundredths}"),
    })
}

/// `15%`.
pub fn percent(core: &str) -> Option<String> {
    let number = core.strip_suffix('%')?;
    let (minus, number) = match number.strip_prefix('-') {
        Some(rest) => ("minus ", rest),
        None => ("", number),
    };
    Some(format!("{minus}{} percent", numbers::written(number)?))
}

/// One and many of a unit. `attached`: written without a space, where a single letter can only be a unit.
fn unit(text: &str, attached: bool) -> Option<(&'static str, &'static str)> {
    Some(match text {
        "km" => ("kilometer", "kilometers"),
        "cm" => ("centimeter", "centimeters"),
        "mm" => ("millimeter", "millimeters"),
        "mi" => ("mile", "miles"),
        "ft" => ("foot", "feet"),
        "yd" | "yds" => ("yard", "yards"),
        "lb" | "lbs" => ("pound", "pounds"),
        "oz" => ("ounce", "ounces"),
        "kg" => ("kilogram", "kilograms"),
        "mg" => ("milligram", "milligrams"),
        "ml" | "mL" => ("milliliter", "milliliters"),
        "gal" => ("gallon", "gallons"),
        "mph" => ("mile per hour", "miles per hour"),
        "mpg" => ("mile per gallon", "miles per gallon"),
        "kph" | "km/h" | "kmh" => ("kilometer per hour", "kilometers per hour"),
        "min" | "mins" => ("minute", "minutes"),
        "hr" | "hrs" => ("hour", "hours"),
        "sec" | "secs" => ("second", "seconds"),
        "ms" => ("millisecond", "milliseconds"),
        "yr" | "yrs" => ("year", "years"),
        "wk" | "wks" => ("week", "weeks"),
        "pcs" => ("piece", "pieces"),
        "°C" | "ºC" => ("degree Celsius", "degrees Celsius"),
        "°F" | "ºF" => ("degree Fahrenheit", "degrees Fahrenheit"),
        "°" => ("degree", "degrees"),
        "kW" => ("kilowatt", "kilowatts"),
        "kWh" => ("kilowatt hour", "kilowatt hours"),
        "KB" | "kB" => ("kilobyte", "kilobytes"),
        "MB" => ("megabyte", "megabytes"),
        "GB" => ("gigabyte", "gigabytes"),
        "TB" => ("terabyte", "terabytes"),
        "Hz" => ("hertz", "hertz"),
        "kHz" => ("kilohertz", "kilohertz"),
        "MHz" => ("megahertz", "megahertz"),
        "GHz" => ("gigahertz", "gigahertz"),
        "psi" => ("P-S-I", "P-S-I"),
        "hp" => ("horsepower", "horsepower"),
        "sqft" => ("square foot", "square feet"),
        "m2" => ("square meter", "square meters"),
        "km2" => ("square kilometer", "square kilometers"),
        "m" if attached => ("meter", "meters"),
        "h" if attached => ("hour", "hours"),
        "g" if attached => ("gram", "grams"),
        "in" if attached => ("inch", "inches"),
        "l" | "L" => ("liter", "liters"),
        "W" if attached => ("watt", "watts"),
        "V" if attached => ("volt", "volts"),
        "k" | "K" if attached => ("thousand", "thousand"),
        _ => return None,
    })
}

/// `5km`, `5 km` (with `next`), `-3.5°C`. Also says whether `next` was used.
pub fn measure(core: &str, next: Option<&str>) -> Option<(String, bool)> {
    let (minus, bare) = match core.strip_prefix('-') {
        Some(rest) => ("minus ", rest),
        None => ("", core),
    };
    let end = bare
        .find(|c: char| !(c.is_ascii_digit() || c == ',' || c == '.'))
        .unwrap_or(bare.len());
    let (number, suffix) = bare.split_at(end);
    let words = numbers::written(number)?;
    let ((one, many), used) = if suffix.is_empty() {
        (unit(next?, false)?, true)
    } else {
        (unit(suffix, true)?, false)
    };
    let name = if number == "1" { one } else { many };
    Some((format!("{minus}{words} {name}"), used))
}

/// `hour` of `$45/hour`.
pub fn per(unit_text: &str) -> Option<&'static str> {
    Some(match unit_text {
        "hour" | "hr" | "h" => "hour",
        "day" => "day",
        "night" => "night",
        "week" | "wk" => "week",
        "month" | "mo" => "month",
        "year" | "yr" => "year",
        "person" => "person",
        "piece" | "pc" => "piece",
        "minute" | "min" => "minute",
        "mile" | "mi" => "mile",
        "km" => "kilometer",
        "kg" => "kilogram",
        "lb" => "pound",
        "visit" => "visit",
        "call" => "call",
        "room" => "room",
        _ => return None,
    })
}

/// `1/2` → "one half", `3/4` → "three quarters", `5/8` → "five eighths".
pub fn fraction(core: &str) -> Option<String> {
    let (top, bottom) = core.split_once('/')?;
    let number = |text: &str| {
        let good = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if good { text.parse::<u64>().ok() } else { None }
    };
    let (top, bottom) = (number(top)?, number(bottom)?);
    let words = numbers::cardinal(top);
    Some(match (top, bottom) {
        (1, 2) => "one half".to_owned(),
        (_, 2) => format!("{words} halves"),
        (1, 4) => "one quarter".to_owned(),
        (_, 4) => format!("{words} quarters"),
        (1, 3 | 5..=10) => format!("one {}", numbers::ordinal(bottom)),
        (top, 3 | 5..=10) if top < bottom => format!("{words} {}s", numbers::ordinal(bottom)),
        _ => format!("{words} over {}", numbers::cardinal(bottom)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_money() {
        for (core, next, want) in [
            ("$45", None, Some("forty-five dollars")),
            ("$1", None, Some("one dollar")),
            ("$45.50", None, Some("forty-five dollars and fifty cents")),
            ("$45.5", None, Some("forty-five dollars and fifty cents")),
            ("$45.00", None, Some("forty-five dollars")),
            ("$0.99", None, Some("ninety-nine cents")),
            ("$.01", None, Some("one cent")),
            ("$1,250", None, Some("one thousand two hundred fifty dollars")),
            ("$1.5", Some("million"), Some("one point five million dollars")),
            ("$2M", None, Some("two million dollars")),
            ("-$5", None, Some("minus five dollars")),
            ("€20", None, Some("twenty euros")),
            ("20€", None, Some("twenty euros")),
            ("£3.50", None, Some("three pounds and fifty pence")),
            ("45", Some("USD"), Some("forty-five dollars")),
            ("45", Some("cars"), None),
            ("45", None, None),
            ("$", None, None),
            ("$x", None, None),
        ] {
            assert_eq!(
                money(core, next).map(|(words, _)| words).as_deref(),
                want,
                "{core} {next:?}"
            );
        }
    }

    #[test]
    fn reads_measures_and_fractions() {
        for (core, next, want) in [
            ("5km", None, Some("five kilometers")),
            ("1", Some("km"), Some("one kilometer")),
            ("3.5", Some("kg"), Some("three point five kilograms")),
            ("-3°C", None, Some("minus three degrees Celsius")),
            ("5", Some("m"), None),
            ("100k", None, Some("one hundred thousand")),
            ("30", Some("min"), Some("thirty minutes")),
            ("x", Some("km"), None),
        ] {
            assert_eq!(
                measure(core, next).map(|(words, _)| words).as_deref(),
                want,
                "{core} {next:?}"
            );
        }
        for (core, want) in [
            ("1/2", Some("one half")),
            ("3/4", Some("three quarters")),
            ("2/3", Some("two thirds")),
            ("9/16", Some("nine over sixteen")),
            ("a/b", None),
        ] {
            assert_eq!(fraction(core).as_deref(), want, "{core}");
        }
        assert_eq!(percent("3.5%").as_deref(), Some("three point five percent"));
        assert_eq!(percent("x%"), None);
    }
}
