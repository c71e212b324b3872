// How much more time than usual tests get: an emulated machine needs it.

/** LIGHTERVISOR_TIME_FACTOR, 1 by default. */
export function timeFactor(): number {
  const factor = Number(process.env['LIGHTERVISOR_TIME_FACTOR'] ?? '1');
  if (!(factor >= 1)) throw new Error('LIGHTERVISOR_TIME_FACTOR must be a number, 1 or more');
  return factor;
}
