// The image server that a new instance's image comes from.
import { AppError } from '#src/lib/errors.ts';
import type { ImageSource } from '../images/sources/remote.ts';
import type { InstanceSource } from './requests.ts';

/** undefined: the image is here. */
export function remoteImage(source: InstanceSource): ImageSource | undefined {
  const { type, server = '', protocol = '', certificate = '', secret = '', project = '' } = source;
  if (type !== 'image' || server === '') return undefined;
  return { server, protocol, certificate, secret, project, alias: nameOf(source) };
}

function nameOf({ fingerprint = '', alias = '', properties }: InstanceSource): string {
  const name = fingerprint || alias;
  if (name !== '') return name;
  const missing = 'Must specify one of alias, fingerprint or properties for init from image';
  throw new AppError('invalid', properties ? 'Property match is only supported for local images' : missing);
}
