"""Small PDF files made by hand: one font, one page a text."""


def pdf(pages, *, font):
    """Return a PDF whose pages draw the given strings (already as content operands)."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", *font]
    first = len(objects) + 1
    kids = []
    for number, text in enumerate(pages):
        page, content = first + 2 * number, first + 2 * number + 1
        kids.append(b"%d 0 R" % page)
        drawn = b"BT /F1 12 Tf 50 700 Td " + text + b" ET" if text else b""
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % content
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    start = out.index(b"xref\n")
    return out + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, start)


LATIN = [b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]


def latin(text):
    """Return the operands that draw Latin text, a line a line."""
    lines = [line.replace("(", r"\(").replace(")", r"\)") for line in text.split("\n")]
    return b" 0 -14 Td ".join(b"(%s) Tj" % line.encode("cp1252") for line in lines)


def glyphs(text, order):
    """Return the operands that draw the letters of ``order`` by number, from 1 on."""
    lines = [
        b"<%s> Tj" % b"".join(b"%04X" % (order.index(char) + 1) for char in line)
        for line in text.split("\n")
    ]
    return b" 0 -14 Td ".join(lines)


def numbered(order, *, told):
    """Return the objects of a font of numbered glyphs, with or without their letters told."""
    unicode = b" /ToUnicode 5 0 R" if told else b""
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Own /Encoding /Identity-H"
        b" /DescendantFonts [4 0 R]%s >>" % unicode
    )
    below = (
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Own /DW 500"
        b" /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>"
    )
    pairs = b"".join(b"<%04X> <%04X>\n" % (n, ord(char)) for n, char in enumerate(order, 1))
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        b"1 begincodespacerange <0000> <FFFF> endcodespacerange\n"
        b"%d beginbfchar\n%sendbfchar\nendcmap end end" % (len(order), pairs)
    )
    return [font, below, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap)]
