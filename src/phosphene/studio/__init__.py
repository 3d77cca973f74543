"""The studio: a page on this machine where photographs are dreamed by looking.

    page -> guard -> app -> queue -> phosphene.job -> folder
                                                        |
                                            pictures that carry their recipe

`serve` opens it. It does nothing that a script could not do through `phosphene.job`; what it adds is a queue, a folder
and a page. There is no database: the pictures are the record.
"""
