"""Files of rows, whatever their format: any rows and columns out, with the units, nulls and types that the file declares."""
