"""The columns of a simulated source, for the TOMLs that tests write."""

COLUMNS = """\
[columns]
transaction_id = "transaction_id"
timestamp = "timestamp"
amount = "amount"
label = "label"
card = "card"
merchant = "merchant"
category = "category"
birth_date = "birth_date"
home_latitude = "home_latitude"
home_longitude = "home_longitude"
merchant_latitude = "merchant_latitude"
merchant_longitude = "merchant_longitude"
city_population = "city_population"
"""
