// A block of snappy: its unpacked length (7 bits a byte, the low ones first, the top bit set on all
// but the last), then elements.
//
// low bits of the tag   element
// 00   literals: 1 + (tag >> 2) bytes; 60 to 63: the count less one is in the next 1 to 4 bytes
// 01   a match of 4 + bits 2-4 at (bits 5-7 << 8) + the next byte
// 10   a match of 1 + (tag >> 2) at the next 2 bytes
// 11   the same at the next 4 bytes
//
// Google snappy, format_description.txt. Own code, as the package that there is takes a block that
// ends too early for a whole one.

/**
 * Unpacks one block of snappy.
 * @throws {Error} it is broken, or has more than `max` bytes
 */
export function unpackSnappy(packed: Uint8Array, max: number): Uint8Array {
  let at = 0;
  const next = (bytes: number): number => {
    let value = 0;
    if (at + bytes > packed.length) throw new Error('its snappy block is truncated');
    for (let i = 0; i < bytes; i++) value += packed[at++]! * 2 ** (8 * i);
    return value;
  };
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = next(1);
    length += (byte & 0x7f) * 2 ** shift;
    if (length > max || shift > 28) throw new Error(`its snappy block has more than ${max} bytes`);
    if (byte < 0x80) break;
  }
  const into = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const tag = next(1);
    if ((tag & 3) === 0) {
      const count = 1 + (tag >> 2 < 60 ? tag >> 2 : next((tag >> 2) - 59));
      if (count > length - done) throw new Error('its snappy block is longer than it says');
      if (at + count > packed.length) throw new Error('its snappy block is truncated');
      into.set(packed.subarray(at, at + count), done);
      at += count;
      done += count;
    } else {
      const near = (tag & 3) === 1;
      const count = near ? 4 + ((tag >> 2) & 7) : 1 + (tag >> 2);
      const distance = near ? ((tag >> 5) << 8) + next(1) : next((tag & 3) === 2 ? 2 : 4);
      if (distance === 0 || distance > done)
        throw new Error('its snappy block refers to what is before it');
      if (count > length - done) throw new Error('its snappy block is longer than it says');
      // Byte by byte: a match may overlap what it makes.
      for (let i = 0; i < count; i++, done++) into[done] = into[done - distance]!;
    }
  }
  if (at !== packed.length) throw new Error('bytes follow the end of its snappy block');
  return into;
}
