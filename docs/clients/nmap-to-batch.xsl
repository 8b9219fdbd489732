<?xml version="1.0"?>
<!-- Turns nmap's XML into a batch of `discovery` events, one for each host that is up. The parameter
     `ts` is the time of the scan; docs/devices.md has the whole command. -->
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output method="text"/>
  <xsl:param name="ts"/>

  <xsl:template match="/nmaprun">
    <xsl:text>[</xsl:text>
    <xsl:for-each select="host[status/@state='up']">
      <xsl:if test="position() > 1">,</xsl:if>
      <xsl:text>{"kind":"discovery","timestamp":"</xsl:text>
      <xsl:value-of select="$ts"/>
      <xsl:text>","data":{"ip":"</xsl:text>
      <xsl:value-of select="address[@addrtype='ipv4' or @addrtype='ipv6'][1]/@addr"/>
      <xsl:text>","mac":</xsl:text>
      <xsl:call-template name="text-or-null">
        <xsl:with-param name="text" select="address[@addrtype='mac']/@addr"/>
      </xsl:call-template>
      <xsl:text>,"hostname":</xsl:text>
      <xsl:call-template name="text-or-null">
        <xsl:with-param name="text" select="hostnames/hostname[1]/@name"/>
      </xsl:call-template>
      <xsl:text>,"vendor":</xsl:text>
      <xsl:call-template name="text-or-null">
        <xsl:with-param name="text" select="address[@addrtype='mac']/@vendor"/>
      </xsl:call-template>
      <xsl:text>,"open_ports":[</xsl:text>
      <xsl:for-each select="ports/port[state/@state='open']">
        <xsl:if test="position() > 1">,</xsl:if>
        <xsl:value-of select="@portid"/>
      </xsl:for-each>
      <xsl:text>]}}</xsl:text>
    </xsl:for-each>
    <xsl:text>]</xsl:text>
  </xsl:template>

  <xsl:template name="text-or-null">
    <xsl:param name="text"/>
    <xsl:choose>
      <xsl:when test="$text">"<xsl:value-of select="translate($text, '&quot;\', '')"/>"</xsl:when>
      <xsl:otherwise>null</xsl:otherwise>
    </xsl:choose>
  </xsl:template>
</xsl:stylesheet>
