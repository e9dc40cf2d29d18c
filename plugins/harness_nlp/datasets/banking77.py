"""The ``banking77`` dataset: intents of bank customers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RemoteFile, Split, installed
from harness_nlp.datasets.examples import INPUTS, split, with_validation

_AT = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
    "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/"
)
_INTENTS = """
card_arrival card_linking exchange_rate card_payment_wrong_exchange_rate extra_charge_on_statement
pending_cash_withdrawal fiat_currency_support card_delivery_estimate automatic_top_up card_not_working
exchange_via_app lost_or_stolen_card age_limit pin_blocked contactless_not_working
top_up_by_bank_transfer_charge pending_top_up cancel_transfer top_up_limits wrong_amount_of_cash_received
card_payment_fee_charged transfer_not_received_by_recipient supported_cards_and_currencies
getting_virtual_card card_acceptance top_up_reverted balance_not_updated_after_cheque_or_cash_deposit
card_payment_not_recognised edit_personal_details why_verify_identity unable_to_verify_identity
get_physical_card visa_or_mastercard topping_up_by_card disposable_card_limits compromised_card atm_support
direct_debit_payment_not_recognised passcode_forgotten declined_cash_withdrawal pending_card_payment
lost_or_stolen_phone request_refund declined_transfer Refund_not_showing_up declined_card_payment
pending_transfer terminate_account card_swallowed transaction_charged_twice verify_source_of_funds
transfer_timing reverted_card_payment? change_pin beneficiary_not_allowed transfer_fee_charged receiving_money
failed_transfer transfer_into_account verify_top_up getting_spare_card top_up_by_cash_or_cheque
order_physical_card virtual_card_not_working wrong_exchange_rate_for_cash_withdrawal
get_disposable_virtual_card top_up_failed balance_not_updated_after_bank_transfer
cash_withdrawal_not_recognised exchange_charge top_up_by_card_charge activate_my_card cash_withdrawal_charge
card_about_to_expire apple_pay_or_google_pay verify_my_identity country_support
"""


class Banking77(Dataset):
    """10,003 training and 3,080 test questions from customers of an online bank, with 77 intents.

    For each intent, the test split has 40 questions and the training file has 35 to 187. The validation split is 10% of
    the training questions for each intent. Inputs: ``text``, object array of str [N]. A question may contain line
    breaks. Targets: int64 [N], indices into ``label_names``, which are in the publisher's order (``categories.json``).
    Published results usually report accuracy.
    """

    name = "banking77"
    kind = "text"
    objective = "classification"
    summary = "13,083 questions to an online bank, 77 intents (PolyAI)"
    license = "CC BY 4.0"
    homepage = "https://github.com/PolyAI-LDN/task-specific-datasets"
    citation = "Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence Encoders, NLP for ConvAI"
    examples = {"train": 8_998, "validation": 1_005, "test": 3_080}
    inputs = INPUTS
    label_names = tuple(_INTENTS.split())
    metric = "accuracy"
    files = (
        RemoteFile(
            url=_AT + "train.csv",
            sha256="b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            bytes=839_073,
        ),
        RemoteFile(
            url=_AT + "test.csv",
            sha256="d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
            bytes=239_961,
        ),
        RemoteFile(
            url=_AT + "categories.json",
            sha256="53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
            bytes=2_036,
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from ``train.csv``, ``test.csv`` and ``categories.json`` in `folder`."""
    intents = json.loads((folder / "categories.json").read_text(encoding="utf-8"))
    return with_validation(_read(folder / "train.csv", intents), _read(folder / "test.csv", intents), intents)


def _read(path: Path, intents: list[str]) -> Split:
    numbers = {intent: number for number, intent in enumerate(intents)}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for row in rows:
        if row.get("category") not in numbers or not row.get("text"):
            raise DataError(f"{path}: expected a text and, in the column category, a known intent; found {row}")
    return split([row["text"] for row in rows], [numbers[row["category"]] for row in rows])
