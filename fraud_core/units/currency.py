"""Currencies by ISO 4217: how many decimals amounts have, and amounts of one currency as cents of another by a rate."""

import math

import polars as pl

# Alphabetic codes of currencies in use by the number of their decimals; those of funds, metals and bonds are none to pay with.
_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP "
        "CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR "
        "KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN "
        "PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD "
        "TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
}
DECIMALS = {code: decimals for decimals, codes in _DECIMALS.items() for code in codes.split()}
_EXACT = 2.0**53


def in_base(hundredths: float, rate: float) -> int | None:
    """An amount in cents of the base currency, halves away from zero; None where it is too large to be told.

    Args:
        hundredths: of the unit of its own currency; thousandths are tenths of them.
        rate: what one unit of its currency is in the base currency.
    """
    size = math.floor(abs(hundredths) * rate + 0.5)
    return (size if hundredths >= 0 else -size) if size < _EXACT else None


def all_in_base(hundredths: pl.Expr, rate: pl.Expr) -> pl.Expr:
    """`in_base` for columns: int64, null where either is."""
    size = (hundredths.cast(pl.Float64).abs() * rate + 0.5).floor()
    whole = pl.when(size < _EXACT).then(size.cast(pl.Int64, strict=False))
    return pl.when(hundredths < 0).then(-whole).otherwise(whole)
