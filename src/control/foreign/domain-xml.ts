import { MultifdError } from "../../errors.ts";
import { isLibvirtImage } from "../../formats/libvirt/header.ts";
import { namingImage } from "../image-errors.ts";
import { openFile } from "../opened-image.ts";
import type { InspectOptions } from "../options.ts";
import { SILENT } from "../silent-log.ts";
import { checkInspectOptions } from "../validate.ts";
import { openLibvirt } from "./libvirt.ts";

/**
 * The XML of the domain in an image of libvirt, finished or not, as libvirt stored it: passwords included. What is behind it
 * is not read.
 * @throws MultifdError NOT_AN_IMAGE (not libvirt's), IMAGE_DAMAGED, UNSUPPORTED_VERSION, IO
 */
export async function domainXml(options: InspectOptions): Promise<string> {
  checkInspectOptions(options);
  const { image, offset = 0 } = options;
  return namingImage(image, async () => {
    const { source, head } = await openFile(image, offset, "off", SILENT);
    try {
      if (isLibvirtImage(head)) return (await openLibvirt(source, head)).data.xml;
      throw new MultifdError(
        "NOT_AN_IMAGE",
        `${image} has no XML of a domain: only images that libvirt saved have one`,
        {},
      );
    } finally {
      source.close();
    }
  });
}
