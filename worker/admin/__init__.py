"""What a person may ask or order, as data: nothing here prints."""
